// The CPU engine of separable sampling: forward, and backward to maps and to boxes, of every
// operator whose bins are Wy F Wx^T (RoIAlign over a pyramid, crop_and_resize).
//
// Deterministic: no atomics, every output element is computed by one task in a fixed order, so the
// bits do not depend on the number of threads.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "common/axis_taps.h"

namespace segroi {

// What one output reads: an image of a map, sampled along two axes. image < 0: nothing, and it is
// 0.
template <typename A>
struct Source {
  int level = 0;
  int64_t image = -1;
  AxisSampler<A> y, x;
};

// K RoIs of `slots` outputs [C, bins_h, bins_w], each the sum of `per` sources; `sources` is
// ordered [K][slots][per]. A is the type of accumulation: double for double maps, else float.
template <typename A>
struct Separable {
  std::vector<at::Tensor> maps;  // [N, C, H, W]
  std::vector<Source<A>> sources;
  int64_t rois;
  int slots, per, bins_h, bins_w;
  A fill = 0;  // what a sample outside the map is worth
};

// A fresh output [K, slots * C, h, w], or [K, slots, C, h, w] if `stack`, in the layout of `like`.
at::Tensor empty_output(const at::Tensor& like, int64_t rois, int64_t slots, int64_t h, int64_t w,
                        bool stack);

// `out` is [K, slots, C, h, w] of the maps' dtype, any strides.
template <typename A>
void separable_forward(const Separable<A>& problem, const at::Tensor& out);

// Gradients of all maps, in the dtype and layout of each; `grad` is [K, slots, C, h, w].
template <typename A>
std::vector<at::Tensor> separable_backward_maps(const Separable<A>& problem,
                                                const at::Tensor& grad);

// Gradients [K, 4] of the ends of the boxes' axes: y start, y end, x start, x end.
template <typename A>
at::Tensor separable_backward_boxes(const Separable<A>& problem, const at::Tensor& grad);

}  // namespace segroi
