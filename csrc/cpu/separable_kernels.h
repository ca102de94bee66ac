// What a SIMD build of the engine offers; separable.cpp picks one at run time.
#pragma once

#include <cstdint>

#include "cpu/axis_table.h"
#include "cpu/row_plan.h"

namespace segroi {

// One image of one map: strides in elements.
template <typename T>
struct ImageView {
  T* data;
  int64_t channel, row, column;
  int width;
};

constexpr int kPlanes = 4;  // channels that the NCHW kernels treat at once

template <typename T, typename A>
struct SeparableKernels {
  // channels_last: acc[bin * stride + channel] (+)= the crop of `channels` neighbouring channels.
  void (*nhwc_forward)(const ImageView<const T>&, const SourceTable<A>&, int channels, A* scratch,
                       A* acc, int64_t stride, bool add);
  // planar: acc[channel * stride + bin] (+)= the crop of up to kPlanes channels; the stride leaves
  // room for one vector behind the bins.
  void (*nchw_forward)(const ImageView<const T>&, const SourceTable<A>&, const RowPlan<A>&,
                       int channels, A* scratch, A* acc, int64_t stride, bool add);
  // Adds to an image of gradients; `grad` as acc above, with room for two vectors behind the bins.
  void (*nhwc_backward)(const ImageView<A>&, const SourceTable<A>&, int channels, A* scratch,
                        const A* grad, int64_t stride);
  void (*nchw_backward)(const ImageView<A>&, const SourceTable<A>&, const RowPlan<A>&, int channels,
                        A* scratch, const A* grad, int64_t stride);
};

// Elements of scratch that any of these calls may use.
template <typename A>
int64_t scratch_elements(const SourceTable<A>& table, const RowPlan<A>& plan, int channels) {
  const int64_t columns = std::max<int64_t>(table.x.pixels.size(), plan.vectors * Lanes<A>::count);
  const int64_t rows = std::max(table.y.bins, 2);
  const int64_t lanes = (channels + Lanes<A>::count - 1) / Lanes<A>::count * Lanes<A>::count;
  return columns * rows * std::max<int64_t>(lanes, kPlanes) + 64 * Lanes<A>::count;
}

#define SEGROI_DECLARE_KERNELS(isa)           \
  namespace isa {                             \
  template <typename T, typename A>           \
  SeparableKernels<T, A> separable_kernels(); \
  }

SEGROI_DECLARE_KERNELS(baseline)
#if defined(__x86_64__)
SEGROI_DECLARE_KERNELS(avx2)
SEGROI_DECLARE_KERNELS(avx512)
#endif

}  // namespace segroi
