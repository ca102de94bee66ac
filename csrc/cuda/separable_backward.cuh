// Gradient of separable sampling by the maps: every tile of a map gathers from the RoIs that touch
// it, in their order. No atomics on values, no memset, each pixel stored once, the same bits on
// every run. Torch-free.
//
// Two launches. separable_plan (separable_plan.cuh) lists the RoIs of every (image, level) with the
// window of pixels that each may read, and brings crops that are not channels last into that order,
// where a lane reads several channels at once; separable_backward gathers.
#pragma once

#include "cuda/separable_tables.cuh"

namespace segroi::cuda {

// What one block of the gather owns: a tile of one map and a range of channels.
struct TileTask {
  int level, channels, origin[2];
  int64_t image, channel;
};

// Coarse levels first: the fewer tiles a map has, the more RoIs meet in each of them.
__device__ __forceinline__ TileTask tile_task(const SeparableArgs& args) {
  unsigned rest = blockIdx.x;
  TileTask task;
  const unsigned chunks = static_cast<unsigned>(args.channel_chunks);
  const unsigned images = static_cast<unsigned>(args.images);
  task.channel = rest % chunks * args.chunk_channels;
  rest /= chunks;
  const int64_t left = args.channels - task.channel;
  task.channels = static_cast<int>(left < args.chunk_channels ? left : args.chunk_channels);
  task.image = rest % images;
  unsigned tile = args.map_tiles[args.levels] - 1 - rest / images;
  task.level = 0;
  while (tile >= args.map_tiles[task.level + 1]) ++task.level;
  tile -= args.map_tiles[task.level];
  const unsigned across = (args.maps[task.level].length[1] + kMapTileColumns - 1) / kMapTileColumns;
  task.origin[0] = static_cast<int>(tile / across) * kMapTileRows;
  task.origin[1] = static_cast<int>(tile % across) * kMapTileColumns;
  return task;
}

// For a batch of RoIs: weights of the bins [bin, bin + bins) on the tile's rows and columns.
template <typename T>
struct TileWeights {
  T* weights[2];      // [hit][bin][kMapTileRows] and [hit][bin][kMapTileColumns]
  unsigned* touched;  // [hit][rows, columns]: bit b says that bin b has a weight there
  int bin[2], bins[2];

  __device__ static constexpr int pixels(int a) { return a == 0 ? kMapTileRows : kMapTileColumns; }
  __device__ T* of(int hit, int a, int b) const {
    return weights[a] + (hit * bins[a] + b) * pixels(a);
  }
  __device__ unsigned* mask(int hit, int a) const {
    return touched + hit * (kMapTileRows + kMapTileColumns) + a * kMapTileRows;
  }
  __device__ int bytes_of_hit() const {
    return (bins[0] * kMapTileRows + bins[1] * kMapTileColumns) * static_cast<int>(sizeof(T)) +
           (kMapTileRows + kMapTileColumns) * 4;
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
template <typename T>
__device__ void fill_weights(const SeparableArgs& args, const TileTask& task, const int* rois,
                             int hits, const TileWeights<T>& w) {
  for (int a = 0; a < 2; ++a) {
    for (int i = threadIdx.x; i < hits * w.bins[a] * w.pixels(a); i += kBlockThreads) {
      w.weights[a][i] = 0;
    }
  }
  for (int i = threadIdx.x; i < hits * (kMapTileRows + kMapTileColumns); i += kBlockThreads)
    w.touched[i] = 0;
  __syncthreads();
  const int per_hit = w.bins[0] + w.bins[1];
  for (int i = threadIdx.x; i < hits * per_hit; i += kBlockThreads) {
    const int hit = i / per_hit, rest = i % per_hit, a = rest < w.bins[0] ? 0 : 1;
    const int b = rest - a * w.bins[0];
    const AxisSampler<T> axis = make_axis(args, load_roi<T>(args, rois[hit]), task.level, a);
    add_weights(axis, w.bin[a] + b, task.origin[a], w.pixels(a), 1u << b, w.of(hit, a, b),
                w.mask(hit, a));
  }
  __syncthreads();
}

// Takes the lowest bin out of a set of bins; -1 where there is none.
__device__ __forceinline__ int take_bin(unsigned* bins) {
  const int bin = __ffs(*bins) - 1;
  *bins &= *bins - 1;
  return bin;
}

// Channels of a lane of the gather: 16 bytes of accumulators.
template <typename scalar_t>
constexpr int kGatherVector = 16 / sizeof(accumulate_t<scalar_t>);

// A block's tile: lanes are channels, V to a lane, warps are rows, registers are a row's pixels.
template <typename scalar_t>
struct Tile {
  using T = accumulate_t<scalar_t>;
  static constexpr int V = kGatherVector<scalar_t>;
  static constexpr int kBatch = 2;  // bins along each axis whose values are under way at a time
  T sum[kMapTileColumns][V] = {};

  // The gradient that RoI `roi` left for the task's channels and this level.
  __device__ void add(const SeparableArgs& args, const TileTask& task, int64_t roi, int hit,
                      const TileWeights<T>& w) {
    const int lane = threadIdx.x % kWarp, row = threadIdx.x / kWarp;
    const unsigned bins_y = w.mask(hit, 0)[row];
    if (bins_y == 0) return;
    unsigned bins_x = w.mask(hit, 1)[lane % kMapTileColumns];
    for (int d = 1; d < kMapTileColumns; d *= 2) bins_x |= __shfl_xor_sync(kFullMask, bins_x, d);
    if (lane * V >= task.channels) return;
    const int step_y = static_cast<int>(args.crop_stride.y);
    const int step_x = static_cast<int>(args.crop_stride.x);
    const scalar_t* crop = static_cast<const scalar_t*>(args.crops) + roi * args.crop_stride_k +
                           (args.slots > 1 ? task.level : 0) * args.crop_stride_slot +
                           task.channel + lane * V + w.bin[0] * args.crop_stride.y +
                           w.bin[1] * args.crop_stride.x;
    while (bins_x != 0) {
      int bx[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) bx[i] = take_bin(&bins_x);
      T part[kBatch][V] = {};
      for (unsigned left = bins_y; left != 0;) {
        Vec<scalar_t, V> value[kBatch][kBatch];
        T weight[kBatch];
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
          const int by = take_bin(&left);
          weight[j] = by < 0 ? T(0) : w.of(hit, 0, by)[row];
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            value[j][i] = Vec<scalar_t, V>{};
            if (by < 0 || bx[i] < 0) continue;
            value[j][i] =
                load_vec<scalar_t, V>(crop + by * args.crop_stride.y + bx[i] * args.crop_stride.x);
          }
        }
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
#pragma unroll
            for (int v = 0; v < V; ++v) part[i][v] += weight[j] * static_cast<T>(value[j][i].v[v]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (bx[i] >= 0) spread(part[i], w.of(hit, 1, bx[i]));
      }
    }
  }

  __device__ __forceinline__ void spread(const T (&part)[V], const T* weights) {
#pragma unroll
    for (int x = 0; x < kMapTileColumns; ++x) {
      const T weight = weights[x];
      if (weight == 0) continue;  // an infinite gradient stays with the pixels that it belongs to
#pragma unroll
      for (int v = 0; v < V; ++v) sum[x][v] += weight * part[v];
    }
  }

  __device__ void store(const SeparableArgs& args, const TileTask& task, unsigned char* shared) {
    const int y = task.origin[0] + threadIdx.x / kWarp;
    const MapView& map = args.maps[task.level];
    if (y >= map.length[0]) return;
    scalar_t* row = map.at<scalar_t>(task.image, task.channel) + y * map.stride.y +
                    task.origin[1] * map.stride.x;
    const int columns = clamp_int(map.length[1] - task.origin[1], 1, kMapTileColumns);
    if (args.vector_maps) {
      store_channels(row, map.stride.x, columns, task.channels);
    } else {
      store_pixels(row, map.stride, columns, task.channels, reinterpret_cast<T*>(shared));
    }
  }

  __device__ void store_channels(scalar_t* row, int64_t stride, int columns, int channels) const {
    const int c = threadIdx.x % kWarp * V;
    if (c >= channels) return;
#pragma unroll
    for (int x = 0; x < kMapTileColumns; ++x) {
      Vec<scalar_t, V> value;
#pragma unroll
      for (int v = 0; v < V; ++v) value.v[v] = static_cast<scalar_t>(sum[x][v]);
      if (x < columns) store_vec(row + x * stride + c, value);
    }
  }

  // Eight lanes store the pixels of a channel, where lanes held its neighbours: every V-th channel
  // at a time changes places in the warp's part of the shared memory.
  __device__ void store_pixels(scalar_t* row, const Strides& stride, int columns, int channels,
                               T* shared) const {
    constexpr int kPitch = kMapTileColumns + 1;
    const int lane = threadIdx.x % kWarp, x = lane % kMapTileColumns;
    T* mine = shared + threadIdx.x / kWarp * kWarp * kPitch;
#pragma unroll
    for (int v = 0; v < V; ++v) {
#pragma unroll
      for (int i = 0; i < kMapTileColumns; ++i) mine[lane * kPitch + i] = sum[i][v];
      __syncwarp();
      for (int l = lane / kMapTileColumns; l < kWarp; l += kWarp / kMapTileColumns) {
        const int c = l * V + v;
        if (c >= channels || x >= columns) continue;
        row[c * stride.c + x * stride.x] = static_cast<scalar_t>(mine[l * kPitch + x]);
      }
      __syncwarp();
    }
  }
};

// Windows of the list from `first` on, kScan to a thread, that meet the tile, in order; returns
// how many. Ends with a barrier.
__device__ inline int find_hits(const WindowLists& lists, int64_t first, int64_t end,
                                const TileTask& task, int* partial, int* hits) {
  unsigned meets = 0;
  const int64_t begin = first + int64_t{threadIdx.x} * kScan;
#pragma unroll
  for (int i = 0; i < kScan; ++i) {
    if (begin + i >= end) break;
    const Window window = lists.windows[begin + i];
    const bool met =
        window.first[0] < task.origin[0] + kMapTileRows && window.last[0] >= task.origin[0] &&
        window.first[1] < task.origin[1] + kMapTileColumns && window.last[1] >= task.origin[1];
    meets |= (met ? 1u : 0u) << i;
  }
  int total, at = block_exclusive_scan(__popc(meets), partial, &total);
  while (meets != 0) hits[at++] = lists.rois[begin + take_bin(&meets)];
  __syncthreads();
  return total;
}

template <typename scalar_t>
__global__ void __launch_bounds__(kBlockThreads, kGatherBlocks)
    separable_backward(const __grid_constant__ SeparableArgs args, const WindowLists lists) {
  using T = accumulate_t<scalar_t>;
  __shared__ int partial[kWarp], hits[kBlockThreads * kScan];
  const TileTask task = tile_task(args);
  const int64_t list = task.image * args.levels + task.level;
  const int64_t begin = lists.begin[2 * list], end = lists.begin[2 * list + 1];
  TileWeights<T> w;
  w.weights[0] = reinterpret_cast<T*>(dynamic_shared());
  Tile<scalar_t> tile;
  for (w.bin[0] = 0; w.bin[0] < args.bins[0]; w.bin[0] += kMaskBins) {
    w.bins[0] = clamp_int(args.bins[0] - w.bin[0], 1, kMaskBins);
    for (w.bin[1] = 0; w.bin[1] < args.bins[1]; w.bin[1] += kMaskBins) {
      w.bins[1] = clamp_int(args.bins[1] - w.bin[1], 1, kMaskBins);
      const int batch = clamp_int(args.shared_bytes / w.bytes_of_hit(), 1, kBlockThreads);
      w.weights[1] = w.weights[0] + batch * w.bins[0] * kMapTileRows;
      w.touched = reinterpret_cast<unsigned*>(w.weights[1] + batch * w.bins[1] * kMapTileColumns);
      for (int64_t first = begin; first < end; first += kBlockThreads * kScan) {
        const int found = find_hits(lists, first, end, task, partial, hits);
        for (int h = 0; h < found; h += batch) {
          const int count = clamp_int(found - h, 1, batch);
          fill_weights(args, task, hits + h, count, w);
          for (int i = 0; i < count; ++i) tile.add(args, task, hits[h + i], i, w);
          __syncthreads();
        }
      }
    }
  }
  tile.store(args, task, dynamic_shared());
}

}  // namespace segroi::cuda
