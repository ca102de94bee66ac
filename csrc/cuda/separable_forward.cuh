// Forward kernels of separable sampling: channels-last maps, and maps of any strides. Torch-free.
#pragma once

#include "cuda/separable_tables.cuh"

namespace segroi::cuda {

constexpr int kLoadsX = 4, kLoadsY = 4;  // pixels of a row, of a column that a lane loads at a time

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

// A part of a warp's channels and rows of bins, small enough that its sums along y fit in the
// warp's shared memory.
struct Part {
  int channel, channels, row, rows;
};

// sums[c][row][column] = sum of the y taps of bin `row` in channel c and that column. Lanes along
// x, and each walks down its column, since the lists of neighbouring bins overlap: two bins at a
// time, kLoadsY pixels of each. What a list is short of is not loaded and has no weight.
template <typename scalar_t, typename T>
__device__ __forceinline__ void sum_along_y(const MapView& map, const scalar_t* plane,
                                            const TapTables<Tap<T>, T>& t, int s,
                                            const Columns& columns, const Part& part, int pitch,
                                            T* sums) {
  constexpr int kBins = 2;
  const Divider by_column(columns.count);
  const unsigned step = static_cast<unsigned>(map.stride.y);
  const int item = t.item(s, 0, part.row);
  for (int i = threadIdx.x % kWarp; i < part.channels * columns.count; i += kWarp) {
    int j = i;
    const int c = by_column.split(&j);
    const int x = columns.dense ? columns.first + j : t.taps[columns.tap + j].pixel;
    const scalar_t* column = plane + c * map.stride.c + x * map.stride.x;
    T* out = sums + c * part.rows * pitch + j;
    for (int r = 0; r < part.rows; r += kBins, out += kBins * pitch) {
      int at[kBins], end[kBins];
      T sum[kBins] = {};
#pragma unroll
      for (int b = 0; b < kBins; ++b) {
        const int bin = item + (r + b < part.rows ? r + b : r);
        at[b] = t.begin[bin];
        end[b] = r + b < part.rows ? t.begin[bin + 1] : at[b];
      }
      while (at[0] < end[0] || at[1] < end[1]) {
        T weight[kBins][kLoadsY];
        scalar_t pixel[kBins][kLoadsY];
#pragma unroll
        for (int b = 0; b < kBins; ++b) {
#pragma unroll
          for (int u = 0; u < kLoadsY; ++u) {
            const bool there = at[b] + u < end[b];
            const Tap<T> y = t.taps[there ? at[b] + u : 0];
            weight[b][u] = there ? y.weight : T(0);
            pixel[b][u] = scalar_t{};
            if (there) pixel[b][u] = column[uint64_t{static_cast<unsigned>(y.pixel)} * step];
          }
          at[b] += kLoadsY;
        }
#pragma unroll
        for (int b = 0; b < kBins; ++b) {
#pragma unroll
          for (int u = 0; u < kLoadsY; ++u) sum[b] += weight[b][u] * static_cast<T>(pixel[b][u]);
        }
      }
#pragma unroll
      for (int b = 0; b < kBins; ++b) {
        if (r + b < part.rows) out[b * pitch] = sum[b];
      }
    }
  }
}

// The crop's values from sums[c][row][column]; lanes along x. Where the values are fewer than
// lanes, up to four lanes share one.
template <typename scalar_t, typename T>
__device__ __forceinline__ void sum_along_x(const SeparableArgs& args, const BlockTask& task,
                                            int count, const TapTables<Tap<T>, T>& t,
                                            const Columns* columns, const Part& part, int pitch,
                                            const T* sums) {
  const Divider by_bin(t.bins[1]), by_row(part.rows);
  const int values = part.channels * part.rows * t.bins[1], lane = threadIdx.x % kWarp;
  const int shift = values <= kWarp / 4 ? 2 : values <= kWarp / 2 ? 1 : 0, share = 1 << shift;
  for (int first = 0; first < values; first += kWarp) {
    const int i = first + (lane >> shift);
    int bx = i < values ? i : values - 1, r = by_bin.split(&bx);
    const int c = by_row.split(&r);
    const T* row = sums + (c * part.rows + r) * pitch;
    T sum = 0;
    for (int s = 0; s < count; row += columns[s++].count) {
      const int item = t.item(s, 1, bx), end = t.begin[item + 1];
      const int back = columns[s].dense ? columns[s].first : columns[s].tap;
      for (int k = t.begin[item] + lane % share; k < end; k += share) {
        sum += t.taps[k].weight * row[(columns[s].dense ? t.taps[k].pixel : k) - back];
      }
    }
    for (int d = 1; d < share; d *= 2) sum += __shfl_xor_sync(kFullMask, sum, d);
    if (i >= values || lane % share != 0) continue;
    crop_at<scalar_t>(args, task, part.row + r, bx)[(part.channel + c) * args.crop_stride.c] =
        static_cast<scalar_t>(sum + extrapolated(args, t, part.row + r, bx));
  }
}

// Maps of any strides, meant for NCHW: first along y for every column that a tap reads, then along
// x in shared memory. A warp has channels of its own and waits for no other.
template <typename scalar_t>
__global__ void __launch_bounds__(kBlockThreads, kStridedBlocks)
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
  // for a window of thousands of columns the memory is enough for fewer warps
  const int width = pitch > 0 ? pitch : 1,
            warps = clamp_int(room / width, 1, kBlockThreads / kWarp);
  const int warp = threadIdx.x / kWarp, mine = room / warps;
  if (warp >= warps) return;
  T* sums = reinterpret_cast<T*>(dynamic_shared() + args.shared_bytes) + warp * mine;
  const int each = (task.channels + warps - 1) / warps, begin = warp * each;
  const int end = begin + each < task.channels ? begin + each : task.channels;
  const int rows = clamp_int(mine / width, 1, t.bins[0]);
  const int channels = clamp_int(mine / (width * rows), 1, each);
  for (int c = begin; c < end; c += channels) {
    for (int row = 0; row < t.bins[0]; row += rows) {
      const Part part{c, clamp_int(end - c, 1, channels), row, clamp_int(t.bins[0] - row, 1, rows)};
      for (int s = 0, base = 0; s < count; base += columns[s++].count) {
        const MapView& map = args.maps[sources.level + s];
        const scalar_t* plane = map.at<scalar_t>(sources.roi.image, task.channel + c);
        sum_along_y(map, plane, t, s, columns[s], part, pitch, sums + base);
      }
      __syncwarp();
      sum_along_x<scalar_t>(args, task, count, t, columns, part, pitch, sums);
      __syncwarp();
    }
  }
}

}  // namespace segroi::cuda
