// Gradient of separable sampling by the boxes: one block a RoI, summed in a fixed order.
// Torch-free.
#pragma once

#include "cuda/separable_tables.cuh"

namespace segroi::cuda {

// d value / d (start, end) of both axes, of one bin in one channel.
template <typename scalar_t, typename T>
__device__ void bin_slopes(const MapView& map, const scalar_t* plane,
                           const TapTables<SlopeTap<T>, T>& t, int item_y, int item_x, T grad,
                           T (&start)[2], T (&end)[2]) {
  for (int i = t.begin[item_y]; i < t.begin[item_y + 1]; ++i) {
    const SlopeTap<T> y = t.taps[i];
    const scalar_t* row = plane + y.pixel * map.stride.y;
    T value = 0, by_start = 0, by_end = 0;
    for (int j = t.begin[item_x]; j < t.begin[item_x + 1]; ++j) {
      const SlopeTap<T> x = t.taps[j];
      const T pixel = grad * static_cast<T>(row[x.pixel * map.stride.x]);
      value += x.weight * pixel;
      by_start += x.by_start * pixel;
      by_end += x.by_end * pixel;
    }
    start[0] += y.by_start * value;
    end[0] += y.by_end * value;
    start[1] += y.weight * by_start;
    end[1] += y.weight * by_end;
  }
}

// The same from the samples, where tap lists do not fit in shared memory.
template <typename scalar_t, typename T>
__device__ __noinline__ void direct_slopes(const MapView& map, const scalar_t* plane,
                                           const AxisSampler<T>& y, const AxisSampler<T>& x, int by,
                                           int bx, T grad, T (&start)[2], T (&end)[2]) {
  const T share = grad / (static_cast<T>(y.samples) * static_cast<T>(x.samples));
  y.for_each_tap(by, [&](const AxisTap<T>& ty) {
    x.for_each_tap(bx, [&](const AxisTap<T>& tx) {
      T dy = 0, dx = 0;
      for (int k = 0; k < 4; ++k) {
        const int64_t at = ty.pixel[k / 2] * map.stride.y + tx.pixel[k % 2] * map.stride.x;
        const T pixel = share * static_cast<T>(plane[at]);
        dy += (k / 2 ? ty.slope : -ty.slope) * tx.weight[k % 2] * pixel;
        dx += (k % 2 ? tx.slope : -tx.slope) * ty.weight[k / 2] * pixel;
      }
      start[0] += dy * y.scale * (1 - ty.u);
      end[0] += dy * y.scale * ty.u;
      start[1] += dx * x.scale * (1 - tx.u);
      end[1] += dx * x.scale * tx.u;
    });
  });
}

// Items of a tile: channels outermost for NCHW, innermost where a channel stride of 1 wants it.
struct ItemOrder {
  int64_t channels;
  int bins;
  bool channels_last;

  __device__ int64_t size() const { return channels * bins; }
  __device__ int64_t channel(int64_t i) const { return channels_last ? i % channels : i / bins; }
  __device__ int bin(int64_t i) const {
    return static_cast<int>(channels_last ? i / channels : i % bins);
  }
};

template <typename scalar_t>
__global__ void __launch_bounds__(kBlockThreads)
    separable_backward_boxes(const __grid_constant__ SeparableArgs args) {
  using T = accumulate_t<scalar_t>;
  __shared__ T partial[kWarp];
  BlockTask task{static_cast<int64_t>(blockIdx.x), 0, 0, 0, {}, {}};
  const Roi<T> roi = load_roi<T>(args, task.roi);
  if (!roi.valid && threadIdx.x == 0) report(args, task.roi);
  const int first = args.all_levels ? 0 : roi.level, levels = args.all_levels ? args.levels : 1;
  T start[2] = {}, end[2] = {};
  for (int level = first; roi.valid && level < first + levels; ++level) {
    const MapView& map = args.maps[level];
    const scalar_t* crop = static_cast<const scalar_t*>(args.crops) +
                           task.roi * args.crop_stride_k +
                           (args.slots > 1 ? level : 0) * args.crop_stride_slot;
    for (int tile = 0; tile < args.tiles[0] * args.tiles[1]; ++tile) {
      task.bin[0] = tile / args.tiles[1] * args.tile_bins[0];
      task.bin[1] = tile % args.tiles[1] * args.tile_bins[1];
      for (int a = 0; a < 2; ++a) {
        task.bins[a] = clamp_int(args.bins[a] - task.bin[a], 1, args.tile_bins[a]);
      }
      const auto t = lay_out_tables<SlopeTap<T>, T>(task, 1, dynamic_shared(), args.shared_bytes);
      __syncthreads();
      const bool fit = fill_tables(args, {roi, level, 1}, task, t);
      const ItemOrder items{args.channels, t.bins[0] * t.bins[1], map.stride.c == 1};
      for (int64_t i = threadIdx.x; i < items.size(); i += kBlockThreads) {
        const int64_t c = items.channel(i);
        const int by = items.bin(i) / t.bins[1], bx = items.bin(i) % t.bins[1];
        const T grad =
            static_cast<T>(crop[c * args.crop_stride.c + (task.bin[0] + by) * args.crop_stride.y +
                                (task.bin[1] + bx) * args.crop_stride.x]);
        const scalar_t* plane = map.at<scalar_t>(roi.image, c);
        if (fit) {
          bin_slopes(map, plane, t, t.item(0, 0, by), t.item(0, 1, bx), grad, start, end);
        } else {
          direct_slopes(map, plane, make_axis(args, roi, level, 0), make_axis(args, roi, level, 1),
                        task.bin[0] + by, task.bin[1] + bx, grad, start, end);
        }
      }
    }
  }
  T* out = static_cast<T*>(args.grad_boxes) + task.roi * args.box_columns;
  __syncthreads();
  if (threadIdx.x < static_cast<unsigned>(args.box_columns)) out[threadIdx.x] = 0;
  for (int i = 0; i < 4; ++i) {
    const T sum = block_sum((i < 2 ? start : end)[i % 2], partial);
    if (threadIdx.x == 0) out[args.box_column[i]] = sum;
  }
}

}  // namespace segroi::cuda
