// Where one axis of a crop is sampled, and which pixels a sample reads with which weights.
// Torch-free.
//
// Sampling is separable: a bin is the mean over its samples (y_i, x_j) of bilinear values, and the
// weights, the test whether a sample lies on the map and the clamping at its border all factor by
// axis. So one bin is sum_a sum_b wy[a] wx[b] map[a][b] with two short lists of (pixel, weight).
//
// An AxisSampler describes `bins` bins of `samples` samples each:
//   bin-wise (RoIAlign):       position(p, i) = origin + p * step + (i + 1/2) * step / samples
//   running (crop_and_resize): position(p, i) = origin + (p * samples + i + shift) * step
// in pixels, where 0 is the centre of the first pixel. Positions are linear in the two ends of the
// box: d position = scale * ((1 - u) d start + u d end), which is all a gradient needs.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace segroi {

// More samples than this in one bin and axis are not taken (a bin of 2^20 px, sampled adaptively).
constexpr int kMaxSamples = 1 << 20;

enum class Border : int {
  clamp,  // RoIAlign: positions in [-1, length] count, clamped to the outer pixels
  hard    // TensorFlow: positions in [0, length - 1] count
};

template <typename T>
struct AxisTap {
  bool inside;   // false: the sample counts as the extrapolation value
  int pixel[2];  // lower and upper neighbour; equal at the border
  T weight[2];
  T slope;  // d weight[1] / d position = -d weight[0] / d position; 0 in the centre of a pixel
  T u;      // where the sample lies between start (0) and end (1) of the box
};

template <typename T>
struct AxisSampler {
  T origin, step, shift;
  T scale;  // pixels per unit of the box's coordinates
  T unit;   // u of one bin (bin-wise) or of one step (running)
  T fixed;  // u where the extent does not depend on the box; negative: it does
  int bins, samples, length;
  bool binwise, nearest;
  Border border;

  SEGROI_HD bool rising() const { return !(step < 0); }

  SEGROI_HD T position(int bin, int i) const {
    if (binwise) {
      const T within = mul_rn(static_cast<T>(i) + T(0.5), step) / static_cast<T>(samples);
      return origin + mul_rn(static_cast<T>(bin), step) + within;
    }
    const T index = static_cast<T>(static_cast<int64_t>(bin) * samples + i) + shift;
    return origin + mul_rn(index, step);
  }

  SEGROI_HD T position_u(int bin, int i) const {
    if (!(fixed < 0)) return fixed;
    if (binwise) {
      return (static_cast<T>(bin) + (static_cast<T>(i) + T(0.5)) / static_cast<T>(samples)) * unit;
    }
    return (static_cast<T>(static_cast<int64_t>(bin) * samples + i) + shift) * unit;
  }

  SEGROI_HD AxisTap<T> tap(int bin, int i) const {
    const T at = position(bin, i);
    const T last = static_cast<T>(length - 1), reach = border == Border::clamp ? T(1) : T(0);
    AxisTap<T> tap{false, {0, 0}, {0, 0}, 0, 0};
    if (!(at >= -reach && at <= last + reach)) return tap;  // written so that NaN is outside
    tap.inside = true;
    tap.u = position_u(bin, i);
    const T on = at < 0 ? T(0) : (at > last ? last : at);
    const int low = static_cast<int>(on);
    const T part = on - static_cast<T>(low);
    if (nearest) {  // half away from zero
      tap.pixel[0] = tap.pixel[1] = low + (part >= T(0.5) ? 1 : 0);
      tap.weight[0] = 1;
      return tap;
    }
    const bool inner = low + 1 < length;
    tap.pixel[0] = low;
    tap.pixel[1] = inner ? low + 1 : low;
    tap.weight[0] = 1 - part;
    tap.weight[1] = part;
    // At the centre of a pixel both of TensorFlow's neighbours are that pixel: no slope.
    tap.slope = inner && at == on && part > 0 ? T(1) : T(0);
    return tap;
  }

  // Calls visit(tap) for the samples of a bin that lie on the map, positions rising. However long
  // the bin is, only as many samples are looked at as can lie on the map.
  template <typename Visit>
  SEGROI_HD void for_each_tap(int bin, Visit visit) const {
    int first = 0, last = samples - 1;
    if (samples > 8) {
      const T spacing = (binwise ? step / static_cast<T>(samples) : step) * (rising() ? 1 : -1);
      const T start = position(bin, rising() ? 0 : last);
      if (spacing > 0) {
        const T skip = (T(-2) - start) / spacing - 2;
        const T stop = (static_cast<T>(length) + 1 - start) / spacing + 2;
        if (!(skip < static_cast<T>(samples)) || !(stop > 0)) return;
        if (skip > 0) first = static_cast<int>(skip);
        if (stop < static_cast<T>(last)) last = static_cast<int>(stop);
      }
    }
    for (int i = first; i <= last; ++i) {
      const AxisTap<T> t = tap(bin, rising() ? i : samples - 1 - i);
      if (t.inside) visit(t);
    }
  }
};

// RoIAlign: bins of box coordinates [start, end] times `scale`. sampling_ratio 0: as many samples
// as a bin has pixels, rounded up. Not aligned: no half-pixel shift, and a box is at least one
// pixel long (Detectron2's ROIAlign against ROIAlignV2). A box without extent is a point, an
// inverted one has no samples and gives 0.
template <typename T>
SEGROI_HD AxisSampler<T> roi_align_axis(T start, T end, T scale, int bins, int sampling_ratio,
                                        bool aligned, int length) {
  const T half = aligned ? T(0.5) : T(0);
  const T from = mul_rn(start, scale) - half;
  T extent = (mul_rn(end, scale) - half) - from;
  const bool lifted = !aligned && !(extent > 1);
  if (lifted) extent = 1;
  const T step = extent / static_cast<T>(bins);
  int samples = sampling_ratio;
  if (samples <= 0) {
    const T wanted = ceil(step);
    samples = wanted < static_cast<T>(kMaxSamples) ? static_cast<int>(wanted) : kMaxSamples;
    if (samples < 1) samples = 1;
  }
  if (!(end >= start)) samples = 0;
  AxisSampler<T> axis{from,  step,         0,       scale,  T(1) / static_cast<T>(bins),
                      T(-1), bins,         samples, length, true,
                      false, Border::clamp};
  if (lifted) axis.fixed = 0;
  return axis;
}

// crop_and_resize: `crop` samples, averaged `pool` at a time, between box coordinates b1 and b2:
// normalised to the centres of the outer pixels ("tf") or in pixels ("aligned").
template <typename T>
SEGROI_HD AxisSampler<T> crop_axis(T b1, T b2, int crop, int pool, bool aligned, bool nearest,
                                   int length) {
  const T span = static_cast<T>(length - 1);
  AxisSampler<T> axis{0,           0,    0,      1,     0,       T(-1),
                      crop / pool, pool, length, false, nearest, Border::hard};
  if (aligned) {
    axis.origin = b1 - T(0.5);
    axis.step = (b2 - b1) / static_cast<T>(crop);
    axis.shift = T(0.5);
    axis.unit = T(1) / static_cast<T>(crop);
    axis.border = Border::clamp;
    return axis;
  }
  axis.scale = span;
  if (crop == 1) {
    axis.origin = mul_rn(mul_rn(T(0.5), b1 + b2), span);
    axis.fixed = T(0.5);
  } else {
    axis.origin = mul_rn(b1, span);
    axis.step = mul_rn(b2 - b1, span) / static_cast<T>(crop - 1);
    axis.unit = T(1) / static_cast<T>(crop - 1);
  }
  return axis;
}

}  // namespace segroi
