// Gradient of crop_and_resize with respect to its boxes, on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "common/axis_taps.h"

namespace segroi {

// One RoI: the rows and columns of its samples, and the planes they read. Strides are in elements.
template <typename scalar_t, typename T>
struct BoxGradient {
  const scalar_t *image, *grad;
  at::IntArrayRef image_stride, grad_stride;  // [n, c, y, x] and [k, c, y, x]
  int64_t channels;
  int pool;

  // Sums over channels of grad times the slopes of one sample along y and x.
  void slopes(const AxisTap<T>& y, const AxisTap<T>& x, const scalar_t* g, T* sy, T* sx) const {
    const int64_t sc = image_stride[1], sh = image_stride[2], sw = image_stride[3];
    const scalar_t* top = image + y.pixel[0] * sh;
    const scalar_t* low = image + y.pixel[1] * sh;
    const int64_t left = x.pixel[0] * sw, right = x.pixel[1] * sw;
    T sum_y = 0, sum_x = 0;
    for (int64_t c = 0; c < channels; ++c, top += sc, low += sc, g += grad_stride[1]) {
      const T a = static_cast<T>(top[left]), b = static_cast<T>(top[right]);
      const T d = static_cast<T>(low[left]), e = static_cast<T>(low[right]);
      const T seed = static_cast<T>(*g);
      sum_y += seed * (x.weight[0] * (d - a) + x.weight[1] * (e - b));
      sum_x += seed * (y.weight[0] * (b - a) + y.weight[1] * (e - d));
    }
    *sy = sum_y;
    *sx = sum_x;
  }

  // d[0..3]: y start, x start, y end, x end.
  void run(const AxisSampler<T>& ys, const AxisSampler<T>& xs, T* d) const {
    const T share = T(1) / static_cast<T>(pool * pool);
    for (int i = 0; i < ys.bins * pool; ++i) {
      const AxisTap<T> y = ys.tap(i / pool, i % pool);
      if (!y.inside) continue;
      for (int j = 0; j < xs.bins * pool; ++j) {
        const AxisTap<T> x = xs.tap(j / pool, j % pool);
        if (!x.inside) continue;
        T sy, sx;
        slopes(y, x, grad + (i / pool) * grad_stride[2] + (j / pool) * grad_stride[3], &sy, &sx);
        // At the centre of a pixel TensorFlow's two neighbours are the same one: no slope.
        sy *= y.weight[1] > 0 ? y.slope * ys.scale * share : T(0);
        sx *= x.weight[1] > 0 ? x.slope * xs.scale * share : T(0);
        d[0] += sy * (1 - y.u), d[2] += sy * y.u;
        d[1] += sx * (1 - x.u), d[3] += sx * x.u;
      }
    }
  }
};

}  // namespace segroi
