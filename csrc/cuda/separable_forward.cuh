// Forward kernels of separable sampling: channels-last maps, and maps of any strides. Torch-free.
#pragma once

#include "cuda/separable_tables.cuh"

namespace segroi::cuda {

constexpr int kLoadsX = 4;        // pixels of a row that a lane loads at a time
constexpr int kChannelGroup = 4;  // channels that share one walk over a tap list (any strides)

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
  const unsigned step = static_cast<unsigned>(map.stride.x);
  const int first = t.begin[item_x], last = t.begin[item_x + 1], end = t.begin[item_y + 1];
  for (int i = t.begin[item_y]; i < end; i += kRows) {
    const scalar_t* row[kRows];
    T weight[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool there = i + r < end;
      const Tap<T> y = t.taps[there ? i + r : i];
      row[r] = plane + y.pixel * map.stride.y;
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
        const uint64_t at = uint64_t{static_cast<unsigned>(x.pixel)} * step;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          pixel[r][u] = Vec<scalar_t, V>{};
          if (there && i + r < end) pixel[r][u] = load_vec<scalar_t, V>(row[r] + at);
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

// The columns of one source that its taps read. Dense: column j is pixel first + j; else (few
// samples in large bins) it is the pixel of the source's j-th x tap.
struct Columns {
  int count, first, tap;  // tap: index of the source's first x tap
  bool dense;
};

template <typename T>
__device__ Columns find_columns(const TapTables<Tap<T>, T>& t, int source) {
  const int begin = t.item(source, 1, 0), end = begin + t.bins[1];
  Columns columns{t.begin[end] - t.begin[begin], 0, t.begin[begin], false};
  int low = 0, high = -1;
  for (int i = begin; i < end; ++i) {
    if (t.begin[i] == t.begin[i + 1]) continue;
    const int first = t.taps[t.begin[i]].pixel, last = t.taps[t.begin[i + 1] - 1].pixel;
    low = high < low || first < low ? first : low;
    high = high < last ? last : high;
  }
  if (high - low + 1 <= columns.count) columns = {high - low + 1, low, columns.tap, true};
  return columns;
}

// A part of a block's crop, small enough that its sums along y fit in shared memory.
struct Part {
  int channel, channels, row, rows;
};

// sums[c][row][column] = sum of the y taps of bin `row` in channel c and that column; lanes along
// x.
template <typename scalar_t, typename T>
__device__ void sum_along_y(const MapView& map, const scalar_t* plane,
                            const TapTables<Tap<T>, T>& t, int s, const Columns& columns,
                            const Part& part, int pitch, T* sums) {
  const int groups = (part.channels + kChannelGroup - 1) / kChannelGroup;
  const Divider by_column(columns.count), by_row(part.rows);
  for (int i = threadIdx.x; i < groups * part.rows * columns.count; i += blockDim.x) {
    int j = i, r = by_column.split(&j);
    const int c = by_row.split(&r) * kChannelGroup;
    const int x = columns.dense ? columns.first + j : t.taps[columns.tap + j].pixel;
    const scalar_t* column[kChannelGroup];
    T sum[kChannelGroup] = {};
#pragma unroll
    for (int u = 0; u < kChannelGroup; ++u) {  // beyond the last channel: the last one again
      column[u] = plane + clamp_int(c + u, 0, part.channels - 1) * map.stride.c + x * map.stride.x;
    }
    const int item = t.item(s, 0, part.row + r);
#pragma unroll 2
    for (int k = t.begin[item]; k < t.begin[item + 1]; ++k) {
      const Tap<T> y = t.taps[k];
      const int64_t at = y.pixel * map.stride.y;
#pragma unroll
      for (int u = 0; u < kChannelGroup; ++u) sum[u] += y.weight * static_cast<T>(column[u][at]);
    }
#pragma unroll
    for (int u = 0; u < kChannelGroup; ++u) {
      if (c + u < part.channels) sums[((c + u) * part.rows + r) * pitch + j] = sum[u];
    }
  }
}

// The crop's values from sums[c][row][column]; lanes along x.
template <typename scalar_t, typename T>
__device__ void sum_along_x(const SeparableArgs& args, const BlockTask& task, int count,
                            const TapTables<Tap<T>, T>& t, const Columns* columns, const Part& part,
                            int pitch, const T* sums) {
  const Divider by_bin(t.bins[1]), by_row(part.rows);
  for (int i = threadIdx.x; i < part.channels * part.rows * t.bins[1]; i += blockDim.x) {
    int bx = i, r = by_bin.split(&bx);
    const int c = by_row.split(&r);
    const T* row = sums + (c * part.rows + r) * pitch;
    T sum = extrapolated(args, t, part.row + r, bx);
    for (int s = 0; s < count; row += columns[s++].count) {
      const int item = t.item(s, 1, bx);
      const bool dense = columns[s].dense;
      for (int k = t.begin[item]; k < t.begin[item + 1]; ++k) {
        sum +=
            t.taps[k].weight * row[dense ? t.taps[k].pixel - columns[s].first : k - columns[s].tap];
      }
    }
    crop_at<scalar_t>(args, task, part.row + r, bx)[(part.channel + c) * args.crop_stride.c] =
        static_cast<scalar_t>(sum);
  }
}

// Maps of any strides, meant for NCHW: first along y for every column that a tap reads, then along
// x in shared memory.
template <typename scalar_t>
__global__ void __launch_bounds__(kBlockThreads, kForwardBlocks)
    separable_forward_strided(const __grid_constant__ SeparableArgs args) {
  using T = accumulate_t<scalar_t>;
  __shared__ Columns columns[kMaxLevels];
  const BlockTask task = block_task(args);
  const Sources<T> sources = find_sources<T>(args, task);
  const int count = sources.count;
  const auto t = lay_out_tables<Tap<T>, T>(task, count, dynamic_shared(), args.shared_bytes);
  const bool fit = fill_tables(args, sources, task, t);
  if (fit && static_cast<int>(threadIdx.x) < count)
    columns[threadIdx.x] = find_columns(t, threadIdx.x);
  __syncthreads();
  const int room = args.sums_bytes / static_cast<int>(sizeof(T));
  int pitch = 0;
  for (int s = 0; s < count && fit; ++s) pitch += columns[s].count;
  if (!fit || pitch > room) return direct_crop<scalar_t>(args, task, sources, t);
  T* sums = reinterpret_cast<T*>(dynamic_shared() + args.shared_bytes);
  const int width = pitch > 0 ? pitch : 1;
  const int rows = clamp_int(room / (width * kChannelGroup), 1, t.bins[0]);
  // as few parts as fit, of about the same number of channels
  const int most = clamp_int(room / (width * rows), 1, task.channels);
  const int parts = (task.channels + most - 1) / most, even = (task.channels + parts - 1) / parts;
  const int channels = even % kChannelGroup == 0 || even == task.channels
                           ? even
                           : clamp_int(even + kChannelGroup - even % kChannelGroup, 1, most);
  for (int c = 0; c < task.channels; c += channels) {
    for (int row = 0; row < t.bins[0]; row += rows) {
      const Part part{c, clamp_int(task.channels - c, 1, channels), row,
                      clamp_int(t.bins[0] - row, 1, rows)};
      for (int s = 0, base = 0; s < count; base += columns[s++].count) {
        const MapView& map = args.maps[sources.level + s];
        const scalar_t* plane = map.at<scalar_t>(sources.roi.image, task.channel + c);
        sum_along_y(map, plane, t, s, columns[s], part, pitch, sums + base);
      }
      __syncthreads();
      sum_along_x<scalar_t>(args, task, count, t, columns, part, pitch, sums);
      __syncthreads();
    }
  }
}

}  // namespace segroi::cuda
