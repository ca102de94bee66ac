// Forward kernel of separable sampling for channels-last maps, and what it shares with the one for
// maps of any strides (separable_forward_strided.cuh). Torch-free.
#pragma once

#include "cuda/separable_tables.cuh"

namespace segroi::cuda {

constexpr int kLoadsX = 4;  // pixels of a row that a lane loads at a time

// Value of a bin straight from its samples: where tap lists do not fit in shared memory.
template <typename scalar_t, typename T>
__device__ T direct_sum(const SeparableArgs& args, const Sources<T>& sources, int64_t channel,
                        int by, int bx) {
  T sum = 0;
  for (int level = sources.level; level < sources.level + sources.count; ++level) {
    const AxisSampler<T> y = make_axis(args, sources.roi, level, 0);
    const AxisSampler<T> x = make_axis(args, sources.roi, level, 1);
    const MapView& map = args.maps[level];
    const scalar_t* plane = map.at<scalar_t>(sources.roi.image, channel);
    T part = 0;
    y.for_each_tap(by, [&](const AxisTap<T>& ty) {
      x.for_each_tap(bx, [&](const AxisTap<T>& tx) {
        for (int k = 0; k < 4; ++k) {
          const T weight = ty.weight[k / 2] * tx.weight[k % 2];
          if (weight == 0) continue;
          const int64_t at = ty.pixel[k / 2] * map.stride.y + tx.pixel[k % 2] * map.stride.x;
          part += weight * static_cast<T>(plane[at]);
        }
      });
    });
    if (part != 0) sum += part / (static_cast<T>(y.samples) * static_cast<T>(x.samples));
  }
  return sum;
}

// What the samples of a bin that miss the map add to it.
template <typename T>
__device__ T extrapolated(const SeparableArgs& args, const TapTables<Tap<T>, T>& t, int by,
                          int bx) {
  if (args.extrapolation == 0 || t.items == 0) return 0;
  const T inside = t.coverage[t.item(0, 0, by)] * t.coverage[t.item(0, 1, bx)];
  return inside < 1 ? (1 - inside) * static_cast<T>(args.extrapolation) : T(0);
}

template <typename scalar_t, typename T>
__device__ __noinline__ void direct_crop(const SeparableArgs& args, const BlockTask& task,
                                         const Sources<T>& sources, const TapTables<Tap<T>, T>& t) {
  const int bins = t.bins[0] * t.bins[1];
  for (int i = threadIdx.x; i < task.channels * bins; i += blockDim.x) {
    const int b = i % bins, c = i / bins, by = b / t.bins[1], bx = b % t.bins[1];
    const T sum =
        direct_sum<scalar_t>(args, sources, task.channel + c, task.bin[0] + by, task.bin[1] + bx);
    crop_at<scalar_t>(args, task, by, bx)[c * args.crop_stride.c] =
        static_cast<scalar_t>(sum + extrapolated(args, t, by, bx));
  }
}

// Adds up to kRows rows times kLoadsX pixels at a time. What a list is short of, up to a whole
// number of these, is not loaded: zeros without a weight stand in for it.
template <typename scalar_t, int V, typename T>
__device__ __forceinline__ void add_taps(const MapView& map, const scalar_t* plane,
                                         const TapTables<Tap<T>, T>& t, int item_y, int item_x,
                                         T (&sum)[V]) {
  constexpr int kRows = V > 4 ? 1 : 2;
  const unsigned step_y = step_bytes<scalar_t>(map.stride.y);
  const unsigned step_x = step_bytes<scalar_t>(map.stride.x);
  const int first = t.begin[item_x], last = t.begin[item_x + 1], end = t.begin[item_y + 1];
  for (int i = t.begin[item_y]; i < end; i += kRows) {
    const scalar_t* row[kRows];
    T weight[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool there = i + r < end;
      const Tap<T> y = t.taps[there ? i + r : i];
      row[r] = step_by(plane, y.pixel, step_y);
      weight[r] = there ? y.weight : T(0);
    }
    for (int j = first; j < last; j += kLoadsX) {
      Vec<scalar_t, V> pixel[kRows][kLoadsX];
      T weight_x[kLoadsX];
#pragma unroll
      for (int u = 0; u < kLoadsX; ++u) {
        const bool there = j + u < last;
        const Tap<T> x = t.taps[there ? j + u : j];
        weight_x[u] = there ? x.weight : T(0);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          pixel[r][u] = Vec<scalar_t, V>{};
          if (there && i + r < end)
            pixel[r][u] = load_vec<scalar_t, V>(step_by(row[r], x.pixel, step_x));
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int u = 0; u < kLoadsX; ++u) {
          const T w = weight[r] * weight_x[u];
#pragma unroll
          for (int v = 0; v < V; ++v) sum[v] += w * static_cast<T>(pixel[r][u].v[v]);
        }
      }
    }
  }
}

// Lanes are channels, V to a lane (16 bytes, or 1); a warp takes every eighth bin. V > 1 wants a
// channel stride of 1 in maps and crops and everything else in multiples of V.
template <typename scalar_t, int V>
__global__ void __launch_bounds__(kBlockThreads, kForwardBlocks)
    separable_forward_channels_last(const __grid_constant__ SeparableArgs args) {
  using T = accumulate_t<scalar_t>;
  const BlockTask task = block_task(args);
  const Sources<T> sources = find_sources<T>(args, task);
  const int count = sources.count;
  const auto t = lay_out_tables<Tap<T>, T>(task, count, dynamic_shared(), args.shared_bytes);
  if (!fill_tables(args, sources, task, t)) return direct_crop<scalar_t>(args, task, sources, t);
  const int lane = threadIdx.x % kWarp, bins = t.bins[0] * t.bins[1];
  for (int b = threadIdx.x / kWarp; b < bins; b += kBlockThreads / kWarp) {
    const int by = b / t.bins[1], bx = b % t.bins[1];
    const T outside = extrapolated(args, t, by, bx);
    scalar_t* crop = crop_at<scalar_t>(args, task, by, bx);
    for (int c = lane * V; c < task.channels; c += kWarp * V) {
      T sum[V] = {};
      for (int s = 0; s < count; ++s) {
        const MapView& map = args.maps[sources.level + s];
        const scalar_t* plane = map.at<scalar_t>(sources.roi.image, task.channel + c);
        add_taps<scalar_t, V>(map, plane, t, t.item(s, 0, by), t.item(s, 1, bx), sum);
      }
      Vec<scalar_t, V> result;
#pragma unroll
      for (int v = 0; v < V; ++v) result.v[v] = static_cast<scalar_t>(sum[v] + outside);
      store_vec(crop + c * args.crop_stride.c, result);
    }
  }
}

}  // namespace segroi::cuda
