// Forward kernel of separable sampling for maps of any strides, meant for NCHW. Torch-free.
//
// A block takes its channels in parts that fit in shared memory: first the sums along y of every
// column that a tap reads, then along x, then the finished crops are copied out. Threads are
// (column, channels) and then (channel, row); all walk the same tap list, so their loads are
// neighbours and nobody waits for a longer list.
#pragma once

#include "cuda/separable_forward.cuh"

namespace segroi::cuda {

constexpr int kChannelGroup = 4;  // channels of a thread along y
constexpr int kTapBatch = 4;      // taps whose values are under way at a time

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

// Adds the taps of an item, U values at a time; load(k, pixel, value) reads those of tap k.
template <int U, typename T, typename Load>
__device__ __forceinline__ void sum_taps(const TapTables<Tap<T>, T>& t, int item, Load load,
                                         T (&sum)[U]) {
  const int end = t.begin[item + 1];
  for (int k = t.begin[item]; k < end; k += kTapBatch) {
    T weight[kTapBatch], value[kTapBatch][U];
#pragma unroll
    for (int b = 0; b < kTapBatch; ++b) {
      if (k + b >= end) continue;
      const Tap<T> tap = t.taps[k + b];
      weight[b] = tap.weight;
      load(k + b, tap.pixel, value[b]);
    }
#pragma unroll
    for (int b = 0; b < kTapBatch; ++b) {
      if (k + b >= end) continue;
#pragma unroll
      for (int u = 0; u < U; ++u) sum[u] += weight[b] * value[b][u];
    }
  }
}

// A part of a block's crop: its sums along y, [channel][row][pitch], and its values,
// [channel][row][bin], are in shared memory.
template <typename T>
struct Part {
  int channel, channels, row, rows, pitch;
  T *sums, *values;
};

template <typename scalar_t, typename T>
__device__ void sum_along_y(const SeparableArgs& args, const BlockTask& task,
                            const Sources<T>& sources, const TapTables<Tap<T>, T>& t,
                            const Columns* columns, int width, const Part<T>& part) {
  const int groups = (part.channels + kChannelGroup - 1) / kChannelGroup;
  const int plane = part.rows * part.pitch;
  const Divider by_column(width > 0 ? width : 1);
  for (int i = threadIdx.x; i < groups * width; i += kBlockThreads) {
    int j = i, s = 0;
    const int c = by_column.split(&j) * kChannelGroup, left = part.channels - c;
    T* to = part.sums + c * plane + j;
    for (; j >= columns[s].count; ++s) j -= columns[s].count;
    const MapView& map = args.maps[sources.level + s];
    const int x = columns[s].dense ? columns[s].first + j : t.taps[columns[s].tap + j].pixel;
    const scalar_t* column[kChannelGroup];
#pragma unroll
    for (int u = 0; u < kChannelGroup; ++u) {  // beyond the last channel: the last one again
      const int64_t channel = task.channel + part.channel + c + (u < left ? u : left - 1);
      column[u] = map.at<scalar_t>(sources.roi.image, channel) + int64_t{x} * map.stride.x;
    }
    const unsigned step = step_bytes<scalar_t>(map.stride.y);
    const auto load = [&](int, int pixel, T(&value)[kChannelGroup]) {
#pragma unroll
      for (int u = 0; u < kChannelGroup; ++u) {
        value[u] = static_cast<T>(*step_by(column[u], pixel, step));
      }
    };
    for (int row = 0; row < part.rows; ++row, to += part.pitch) {
      T sum[kChannelGroup] = {};
      sum_taps(t, t.item(s, 0, part.row + row), load, sum);
#pragma unroll
      for (int u = 0; u < kChannelGroup; ++u) {
        if (u < left) to[u * plane] = sum[u];
      }
    }
  }
}

template <typename T>
__device__ void sum_along_x(int count, const TapTables<Tap<T>, T>& t, const Columns* columns,
                            const Part<T>& part) {
  for (int i = threadIdx.x; i < part.channels * part.rows; i += kBlockThreads) {
    const T* from = part.sums + i * part.pitch;
    T* to = part.values + i * t.bins[1];
    for (int s = 0; s < count; from += columns[s++].count) {
      const bool dense = columns[s].dense;
      const int first = dense ? columns[s].first : columns[s].tap;
      for (int bin = 0; bin < t.bins[1]; ++bin) {
        T sum[1] = {};
        sum_taps(
            t, t.item(s, 1, bin),
            [&](int k, int pixel, T(&value)[1]) { value[0] = from[(dense ? pixel : k) - first]; },
            sum);
        to[bin] = s > 0 ? to[bin] + sum[0] : sum[0];
      }
    }
  }
}

// Lanes along the bins.
template <typename scalar_t, typename T>
__device__ void store_part(const SeparableArgs& args, const BlockTask& task,
                           const TapTables<Tap<T>, T>& t, const Part<T>& part) {
  const int bins = t.bins[1], plane = part.rows * bins, count = part.channels * plane;
  const Strides& stride = args.crop_stride;
  scalar_t* crop = crop_at<scalar_t>(args, task, part.row, 0) + part.channel * stride.c;
  const bool extrapolate = args.extrapolation != 0;
  if (stride.c == plane && stride.y == bins && stride.x == 1 && !extrapolate) {
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += kBlockThreads) {
      crop[i] = static_cast<scalar_t>(part.values[i]);
    }
    return;
  }
  const Divider by_plane(plane), by_row(bins);
  for (int i = threadIdx.x; i < count; i += kBlockThreads) {
    int x = i;
    const int c = by_plane.split(&x), y = by_row.split(&x);
    const T outside = extrapolate ? extrapolated(args, t, part.row + y, x) : T(0);
    crop[c * stride.c + y * stride.y + x * stride.x] =
        static_cast<scalar_t>(part.values[i] + outside);
  }
}

template <typename scalar_t>
__global__ void __launch_bounds__(kBlockThreads,
                                  sizeof(scalar_t) == 8 ? kForwardBlocks / 2 : kForwardBlocks)
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
  int width = 0;
  for (int s = 0; s < count && fit; ++s) width += columns[s].count;
  const int pitch = width | 1;  // odd: lanes in neighbouring rows meet different banks
  const int room = args.sums_bytes / static_cast<int>(sizeof(T)), line = pitch + t.bins[1];
  if (!fit || count == 0 || line > room) return direct_crop<scalar_t>(args, task, sources, t);
  const int rows = clamp_int(room / (line * kChannelGroup), 1, t.bins[0]);
  // as many channels as fit and as give every thread one column of kChannelGroup of them
  const int groups = width > 0 ? kBlockThreads / width : 1;
  const int most = (groups > 1 ? groups : 1) * kChannelGroup;
  int channels = clamp_int(room / (line * rows), 1, most);
  if (channels > kChannelGroup) channels -= channels % kChannelGroup;
  T* sums = reinterpret_cast<T*>(dynamic_shared() + args.shared_bytes);
  T* values = sums + channels * rows * pitch;
  for (int c = 0; c < task.channels; c += channels) {
    for (int row = 0; row < t.bins[0]; row += rows) {
      const Part<T> part{c,     clamp_int(task.channels - c, 1, channels),
                         row,   clamp_int(t.bins[0] - row, 1, rows),
                         pitch, sums,
                         values};
      sum_along_y<scalar_t>(args, task, sources, t, columns, width, part);
      __syncthreads();
      sum_along_x(count, t, columns, part);
      __syncthreads();
      store_part<scalar_t>(args, task, t, part);
    }
  }
}

}  // namespace segroi::cuda
