// Gradient of separable sampling by the maps: every tile of a map gathers from the RoIs that touch
// it, in their order. No atomics on values, no memset, each pixel stored once, the same bits on
// every run. Torch-free.
//
// Two launches: separable_plan lists the RoIs of every (image, level) with the window of pixels
// that each may read; separable_backward gathers.
#pragma once

#include "cuda/separable_tables.cuh"

namespace segroi::cuda {

// Rows or columns [first, last] that an axis may read; positions are linear in the bins.
template <typename T>
__device__ void window_of(const AxisSampler<T>& axis, int* first, int* last) {
  const T a = axis.position(0, 0), b = axis.position(axis.bins - 1, axis.samples - 1);
  const T low = a < b ? a : b, high = a < b ? b : a, end = static_cast<T>(axis.length - 1);
  *first = low > 0 ? (low < end ? static_cast<int>(low) : axis.length - 1) : 0;
  *last = high < end ? (high > 0 ? static_cast<int>(high) + 1 : 0) : axis.length - 1;
}

// One block for each list (image, level). A thread takes a strip of RoIs, so the list keeps their
// order.
template <typename T>
__global__ void __launch_bounds__(kPlanThreads)
    separable_plan(const __grid_constant__ SeparableArgs args, const WindowLists lists) {
  __shared__ int partial[kWarp];
  const int level = static_cast<int>(blockIdx.x % args.levels);
  const int64_t image = blockIdx.x / args.levels;
  const int64_t strip = (args.rois + kPlanThreads - 1) / kPlanThreads, first = threadIdx.x * strip;
  const int64_t last = first + strip < args.rois ? first + strip : args.rois;
  const auto reads = [&](const Roi<T>& roi) {
    return roi.valid && roi.image == image && (args.all_levels || roi.level == level);
  };
  int mine = 0, earlier = 0, total, total_earlier;  // earlier: entries of the lists before this one
  for (int64_t k = first; k < last; ++k) {
    const Roi<T> roi = load_roi<T>(args, k);
    mine += reads(roi);
    if (roi.valid && args.all_levels) {
      earlier += roi.image < image ? args.levels : roi.image == image ? level : 0;
    } else if (roi.valid) {
      earlier += roi.image < image || (roi.image == image && roi.level < level);
    }
  }
  block_exclusive_scan(earlier, partial, &total_earlier);
  int64_t at = total_earlier + block_exclusive_scan(mine, partial, &total);
  if (threadIdx.x == 0) {
    lists.begin[2 * blockIdx.x] = total_earlier;
    lists.begin[2 * blockIdx.x + 1] = total_earlier + total;
  }
  for (int64_t k = first; k < last; ++k) {
    const Roi<T> roi = load_roi<T>(args, k);
    if (!reads(roi)) continue;
    const Source<T> source = make_source(args, roi, level);
    Window window;
#pragma unroll
    for (int a = 0; a < 2; ++a) window_of(source.axis[a], &window.first[a], &window.last[a]);
    lists.windows[at] = window;
    lists.rois[at++] = static_cast<int>(k);
  }
}

// What one block of the gather owns: a tile of one map and a range of channels.
struct TileTask {
  int level, channels, origin[2];
  int64_t image, channel;
};

__device__ __forceinline__ TileTask tile_task(const SeparableArgs& args, int columns) {
  unsigned rest = blockIdx.x;
  TileTask task;
  task.channel = rest % args.channel_chunks * args.chunk_channels;
  rest /= args.channel_chunks;
  const int64_t left = args.channels - task.channel;
  task.channels = static_cast<int>(left < args.chunk_channels ? left : args.chunk_channels);
  unsigned tile = rest % args.map_tiles[args.levels];
  task.image = rest / args.map_tiles[args.levels];
  task.level = 0;
  while (tile >= args.map_tiles[task.level + 1]) ++task.level;
  tile -= args.map_tiles[task.level];
  const unsigned across = (args.maps[task.level].length[1] + columns - 1) / columns;
  task.origin[0] = static_cast<int>(tile / across) * kMapTileRows;
  task.origin[1] = static_cast<int>(tile % across) * columns;
  return task;
}

// For a batch of RoIs: weights of the bins [bin, bin + bins) on the tile's rows and columns.
template <typename T, int kColumns>
struct TileWeights {
  T* weights[2];      // [hit][bin][kMapTileRows] and [hit][bin][kColumns]
  unsigned* touched;  // [hit][kMapTileRows + kColumns]: bit b says that bin b has a weight there
  int bin[2], bins[2];

  __device__ static constexpr int pixels(int a) { return a == 0 ? kMapTileRows : kColumns; }
  __device__ T* of(int hit, int a, int b) const {
    return weights[a] + (hit * bins[a] + b) * pixels(a);
  }
  __device__ unsigned* mask(int hit, int a) const {
    return touched + hit * (kMapTileRows + kColumns) + a * kMapTileRows;
  }
};

template <typename T>
__device__ __noinline__ void add_weights(const AxisSampler<T>& axis, int bin, int origin,
                                         int pixels, unsigned bit, T* weights, unsigned* mask) {
  const T a = axis.position(bin, 0), b = axis.position(bin, axis.samples - 1);
  if ((a < b ? b : a) < static_cast<T>(origin - 1) ||
      (a < b ? a : b) > static_cast<T>(origin + pixels)) {
    return;
  }
  const T share = T(1) / static_cast<T>(axis.samples);
  axis.for_each_tap(bin, [&](const AxisTap<T>& tap) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int at = tap.pixel[side] - origin;
      if (at < 0 || at >= pixels || tap.weight[side] == 0) continue;
      weights[at] += tap.weight[side] * share;
      atomicOr(mask + at, bit);
    }
  });
}

// Ends with a barrier.
template <typename T, int kColumns>
__device__ void fill_weights(const SeparableArgs& args, const TileTask& task, const int* rois,
                             int hits, const TileWeights<T, kColumns>& w) {
  for (int a = 0; a < 2; ++a) {
    for (int i = threadIdx.x; i < hits * w.bins[a] * w.pixels(a); i += kBlockThreads) {
      w.weights[a][i] = 0;
    }
  }
  for (int i = threadIdx.x; i < hits * (kMapTileRows + kColumns); i += kBlockThreads)
    w.touched[i] = 0;
  __syncthreads();
  const int per_hit = w.bins[0] + w.bins[1];
  for (int i = threadIdx.x; i < hits * per_hit; i += kBlockThreads) {
    const int hit = i / per_hit, rest = i % per_hit, a = rest < w.bins[0] ? 0 : 1;
    const int b = rest - a * w.bins[0];
    const Source<T> source = make_source(args, load_roi<T>(args, rois[hit]), task.level);
    add_weights(source.axis[a], w.bin[a] + b, task.origin[a], w.pixels(a), 1u << b, w.of(hit, a, b),
                w.mask(hit, a));
  }
  __syncthreads();
}

// The gradient that RoI `roi` left for the task's channels and this level.
template <typename scalar_t>
__device__ __forceinline__ const scalar_t* crop_of(const SeparableArgs& args, const TileTask& task,
                                                   int64_t roi) {
  return static_cast<const scalar_t*>(args.crops) + roi * args.crop_stride_k +
         (args.slots > 1 ? task.level : 0) * args.crop_stride_slot +
         task.channel * args.crop_stride.c;
}

// Channels of a lane of the gather: 16 bytes of accumulators.
template <typename scalar_t>
constexpr int kGatherVector = 16 / sizeof(accumulate_t<scalar_t>);

// Tile of a channels-last map: lanes are channels (V to a lane), registers are the row's pixels.
template <typename scalar_t, int V>
struct ChannelsLastTile {
  using T = accumulate_t<scalar_t>;
  static constexpr int kColumns = kMapTileColumns[0], kScratch = 0;
  T sum[kColumns][V] = {};

  __device__ void add(const SeparableArgs& args, const TileTask& task, int64_t roi, int hit,
                      const TileWeights<T, kColumns>& w, T*) {
    const int lane = threadIdx.x % kWarp, row = threadIdx.x / kWarp;
    const unsigned bins_y = w.mask(hit, 0)[row];
    if (bins_y == 0) return;
    unsigned bins_x = w.mask(hit, 1)[lane % kColumns];
    for (int d = 1; d < kColumns; d *= 2) bins_x |= __shfl_xor_sync(kFullMask, bins_x, d);
    if (bins_x == 0 || lane * V >= task.channels) return;
    const scalar_t* crop = crop_of<scalar_t>(args, task, roi) + lane * V * args.crop_stride.c;
    for (unsigned left_x = bins_x; left_x != 0; left_x &= left_x - 1) {
      const int bx = __ffs(left_x) - 1;
      const scalar_t* column = crop + (w.bin[1] + bx) * args.crop_stride.x;
      T part[V] = {};
      for (unsigned left_y = bins_y; left_y != 0; left_y &= left_y - 1) {
        const int by = __ffs(left_y) - 1;
        const T weight = w.of(hit, 0, by)[row];
        const auto value = load_vec<scalar_t, V>(column + (w.bin[0] + by) * args.crop_stride.y);
#pragma unroll
        for (int v = 0; v < V; ++v) part[v] += weight * static_cast<T>(value.v[v]);
      }
      const T* weights = w.of(hit, 1, bx);
#pragma unroll
      for (int x = 0; x < kColumns; ++x) {
        const T weight = weights[x];
        if (weight == 0) continue;  // an infinite gradient stays with the pixels that it belongs to
#pragma unroll
        for (int v = 0; v < V; ++v) sum[x][v] += weight * part[v];
      }
    }
  }

  __device__ void store(const SeparableArgs& args, const TileTask& task) const {
    const MapView& map = args.maps[task.level];
    const int c = threadIdx.x % kWarp * V, y = task.origin[0] + threadIdx.x / kWarp;
    if (y >= map.length[0] || c >= task.channels) return;
    scalar_t* row = map.at<scalar_t>(task.image, task.channel + c) + y * map.stride.y;
#pragma unroll
    for (int x = 0; x < kColumns; ++x) {
      Vec<scalar_t, V> value;
#pragma unroll
      for (int v = 0; v < V; ++v) value.v[v] = static_cast<scalar_t>(sum[x][v]);
      if (task.origin[1] + x < map.length[1])
        store_vec(row + (task.origin[1] + x) * map.stride.x, value);
    }
  }
};

// Tile of a map of any strides, meant for NCHW: lanes are the row's pixels, registers are channels.
template <typename scalar_t>
struct StridedTile {
  using T = accumulate_t<scalar_t>;
  static constexpr int kColumns = kMapTileColumns[1], kChannels = kGatherChannels;
  static constexpr int kScratch = kMapTileRows * kMaskBins * kChannels;  // [row][bin][channel]
  T sum[kChannels] = {};

  __device__ void add(const SeparableArgs& args, const TileTask& task, int64_t roi, int hit,
                      const TileWeights<T, kColumns>& w, T* scratch) {
    const int lane = threadIdx.x % kWarp, row = threadIdx.x / kWarp;
    const unsigned bins_y = w.mask(hit, 0)[row], mine = w.mask(hit, 1)[lane];
    if (bins_y == 0) return;
    unsigned bins_x = mine;
    for (int d = 1; d < kWarp; d *= 2) bins_x |= __shfl_xor_sync(kFullMask, bins_x, d);
    if (bins_x == 0) return;
    const int first = __ffs(bins_x) - 1, count = kWarp - __clz(bins_x) - first;
    T* parts = scratch + row * kMaskBins * kChannels;  // [bin - first][channel], summed along y
    const scalar_t* crop =
        crop_of<scalar_t>(args, task, roi) + (w.bin[1] + first) * args.crop_stride.x;
    for (int i = lane; i < count * task.channels; i += kWarp) {
      const int bx = i % count, c = i / count;
      T part = 0;
      for (unsigned left = bins_y; left != 0; left &= left - 1) {
        const int by = __ffs(left) - 1;
        part += w.of(hit, 0, by)[row] *
                static_cast<T>(crop[c * args.crop_stride.c + bx * args.crop_stride.x +
                                    (w.bin[0] + by) * args.crop_stride.y]);
      }
      parts[bx * kChannels + c] = part;
    }
    __syncwarp();
    for (unsigned left = mine; left != 0; left &= left - 1) {
      const int bx = __ffs(left) - 1;
      const T weight = w.of(hit, 1, bx)[lane];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sum[c] += weight * parts[(bx - first) * kChannels + c];
    }
    __syncwarp();
  }

  __device__ void store(const SeparableArgs& args, const TileTask& task) const {
    const MapView& map = args.maps[task.level];
    const int x = task.origin[1] + threadIdx.x % kWarp, y = task.origin[0] + threadIdx.x / kWarp;
    if (y >= map.length[0] || x >= map.length[1]) return;
    scalar_t* pixel =
        map.at<scalar_t>(task.image, task.channel) + y * map.stride.y + x * map.stride.x;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (c < task.channels) pixel[c * map.stride.c] = static_cast<scalar_t>(sum[c]);
    }
  }
};

// Windows of the list from `first` on, one a thread, that meet the tile, in order; returns how
// many. Ends with a barrier.
__device__ inline int find_hits(const WindowLists& lists, int64_t first, int64_t end,
                                const TileTask& task, int columns, int* partial, int* hits) {
  const int64_t i = first + threadIdx.x;
  int roi = -1;
  if (i < end) {
    const Window window = lists.windows[i];
    const bool meets =
        window.first[0] < task.origin[0] + kMapTileRows && window.last[0] >= task.origin[0] &&
        window.first[1] < task.origin[1] + columns && window.last[1] >= task.origin[1];
    if (meets) roi = lists.rois[i];
  }
  int total;
  const int at = block_exclusive_scan(roi >= 0, partial, &total);
  if (roi >= 0) hits[at] = roi;
  __syncthreads();
  return total;
}

template <typename scalar_t, typename Tile>
__global__ void __launch_bounds__(kBlockThreads, 3)
    separable_backward(const __grid_constant__ SeparableArgs args, const WindowLists lists) {
  using T = accumulate_t<scalar_t>;
  __shared__ int partial[kWarp], hits[kBlockThreads];
  const TileTask task = tile_task(args, Tile::kColumns);
  const int64_t list = task.image * args.levels + task.level;
  const int64_t begin = lists.begin[2 * list], end = lists.begin[2 * list + 1];
  T* scratch = reinterpret_cast<T*>(dynamic_shared());
  TileWeights<T, Tile::kColumns> w;
  w.weights[0] = scratch + Tile::kScratch;
  Tile tile;
  for (w.bin[0] = 0; w.bin[0] < args.bins[0]; w.bin[0] += kMaskBins) {
    w.bins[0] = clamp_int(args.bins[0] - w.bin[0], 1, kMaskBins);
    for (w.bin[1] = 0; w.bin[1] < args.bins[1]; w.bin[1] += kMaskBins) {
      w.bins[1] = clamp_int(args.bins[1] - w.bin[1], 1, kMaskBins);
      const int weights = w.bins[0] * kMapTileRows + w.bins[1] * Tile::kColumns;
      const int per_hit =
          weights * static_cast<int>(sizeof(T)) + (kMapTileRows + Tile::kColumns) * 4;
      const int batch = clamp_int(args.shared_bytes / per_hit, 1, kBlockThreads);
      w.weights[1] = w.weights[0] + batch * w.bins[0] * kMapTileRows;
      w.touched = reinterpret_cast<unsigned*>(w.weights[1] + batch * w.bins[1] * Tile::kColumns);
      for (int64_t first = begin; first < end; first += kBlockThreads) {
        const int found = find_hits(lists, first, end, task, Tile::kColumns, partial, hits);
        for (int h = 0; h < found; h += batch) {
          const int count = clamp_int(found - h, 1, batch);
          fill_weights(args, task, hits + h, count, w);
          for (int i = 0; i < count; ++i) tile.add(args, task, hits[h + i], i, w, scratch);
          __syncthreads();
        }
      }
    }
  }
  tile.store(args, task);
}

}  // namespace segroi::cuda
