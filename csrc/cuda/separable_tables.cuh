// RoI -> where it reads, and the merged tap lists of a tile of its bins in shared memory.
// Torch-free.
//
// A bin's value is sum_i sum_j wy[i] wx[j] map[y_i][x_j]; the lists (y_i, wy[i]) and (x_j, wx[j])
// merge the taps of all samples of the bin along one axis, divided by their number.
#pragma once

#include <type_traits>

#include "cuda/block.cuh"
#include "cuda/separable.h"

namespace segroi::cuda {

template <typename scalar_t>
using accumulate_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

__device__ __forceinline__ int clamp_int(int value, int low, int high) {
  return value < low ? low : value > high ? high : value;
}

template <typename T>
struct Roi {
  bool valid;
  int level;  // where it reads unless it reads all
  int64_t image, index;
  T start[2], end[2];
};

__device__ __forceinline__ int64_t load_integer(const void* data, int bytes, int64_t i) {
  switch (bytes) {
    case 8:
      return static_cast<const int64_t*>(data)[i];
    case 4:
      return static_cast<const int32_t*>(data)[i];
    case 2:
      return static_cast<const int16_t*>(data)[i];
    case 1:
      return static_cast<const int8_t*>(data)[i];
    default:
      return static_cast<const uint8_t*>(data)[i];
  }
}

// RoI k, checked: a NaN or infinite box, an image or a level that does not exist is not valid.
template <typename T>
__device__ Roi<T> load_roi(const SeparableArgs& args, int64_t k) {
  const T* row = static_cast<const T*>(args.boxes) + k * args.box_stride;
  Roi<T> roi{true, 0, -1, k, {}, {}};
  for (int i = 0; i < 4; ++i) {
    const T value = row[args.box_column[i] * args.box_column_stride];
    (i < 2 ? roi.start : roi.end)[i % 2] = value;
    roi.valid &= value - value == 0;
  }
  if (args.image_column < 0) {
    roi.image = load_integer(args.image_index, args.image_index_bytes, k * args.image_index_stride);
  } else {
    const T image = row[args.image_column * args.box_column_stride];
    const bool on = image >= 0 && image < static_cast<T>(args.images) && image == floor(image);
    roi.image = on ? static_cast<int64_t>(image) : -1;
  }
  roi.valid &= roi.image >= 0 && roi.image < args.images;
  if (args.level_index != nullptr) {
    const int64_t level =
        load_integer(args.level_index, args.level_index_bytes, k * args.level_index_stride);
    roi.valid &= level >= 0 && level < args.levels;
    roi.level = roi.valid ? static_cast<int>(level) : 0;
  } else if (!args.all_levels) {
    roi.level = box_level(args.level_map, roi.start[1], roi.start[0], roi.end[1], roi.end[0]);
  }
  return roi;
}

// Axis `a` (y, x) of a RoI on the map of a level.
template <typename T>
__device__ AxisSampler<T> make_axis(const SeparableArgs& args, const Roi<T>& roi, int level,
                                    int a) {
  const MapView& map = args.maps[level];
  const T start = a == 0 ? roi.start[0] : roi.start[1], end = a == 0 ? roi.end[0] : roi.end[1];
  return args.coordinates == Coordinates::roi_align
             ? roi_align_axis(start, end, static_cast<T>(map.scale), args.bins[a], args.samples[a],
                              args.aligned, map.length[a])
             : crop_axis(start, end, args.samples[a], args.pool,
                         args.coordinates == Coordinates::crop_pixels, args.nearest, map.length[a]);
}

// Notes that RoI `k` is wrong, where somebody wants to know.
__device__ __forceinline__ void report(const SeparableArgs& args, int64_t k) {
  if (args.error_flag == nullptr) return;
  *static_cast<volatile int64_t*>(args.error_flag) = error_word(args.op, k);
}

// What one block of a forward kernel computes: a tile of bins and a range of channels of one slot.
// All blocks of a range come together, so that the L2 cache holds what they read of the maps.
struct BlockTask {
  int64_t roi, channel;
  int slot, channels, bin[2], bins[2];
};

__device__ __forceinline__ BlockTask block_task(const SeparableArgs& args) {
  unsigned rest = blockIdx.x % args.chunk_blocks;
  BlockTask task;
  task.channel = blockIdx.x / args.chunk_blocks * args.chunk_channels;
  const int64_t left = args.channels - task.channel;
  task.channels = static_cast<int>(left < args.chunk_channels ? left : args.chunk_channels);
  for (int a = 1; a >= 0; --a) {
    task.bin[a] = static_cast<int>(rest % args.tiles[a]) * args.tile_bins[a];
    task.bins[a] = clamp_int(args.bins[a] - task.bin[a], 1, args.tile_bins[a]);
    rest /= args.tiles[a];
  }
  task.slot = static_cast<int>(rest % args.slots);
  task.roi = rest / args.slots;
  return task;
}

// The maps that one block reads: `count` levels from `level` on, none for a wrong RoI.
template <typename T>
struct Sources {
  Roi<T> roi;
  int level, count;
};

template <typename T>
__device__ __forceinline__ Sources<T> find_sources(const SeparableArgs& args,
                                                   const BlockTask& task) {
  const Roi<T> roi = load_roi<T>(args, task.roi);
  if (!roi.valid && threadIdx.x == 0) report(args, task.roi);
  const bool all = args.all_levels && args.slots == 1;
  const int level = !args.all_levels ? roi.level : all ? 0 : task.slot;
  return {roi, level, !roi.valid ? 0 : all ? args.levels : 1};
}

template <typename scalar_t>
__device__ __forceinline__ scalar_t* crop_at(const SeparableArgs& args, const BlockTask& task,
                                             int by, int bx) {
  return static_cast<scalar_t*>(args.crops) + task.roi * args.crop_stride_k +
         task.slot * args.crop_stride_slot + task.channel * args.crop_stride.c +
         (task.bin[0] + by) * args.crop_stride.y + (task.bin[1] + bx) * args.crop_stride.x;
}

// A tap of a bin: with the derivatives of its weight by the two ends of the box, where wanted.
template <typename T>
struct Tap {
  int pixel;
  T weight;
  __device__ void add(const AxisTap<T>& tap, int side, const AxisSampler<T>&) {
    weight += tap.weight[side];
  }
  __device__ void scale(T share) { weight *= share; }
  __device__ bool counts() const { return weight != 0; }  // a weight of 0 silences inf and NaN
};

template <typename T>
struct SlopeTap {
  int pixel;
  T weight, by_start, by_end;
  __device__ void add(const AxisTap<T>& tap, int side, const AxisSampler<T>& axis) {
    const T slope = (side == 0 ? -tap.slope : tap.slope) * axis.scale;
    weight += tap.weight[side];
    by_start += slope * (1 - tap.u);
    by_end += slope * tap.u;
  }
  __device__ void scale(T share) { weight *= share, by_start *= share, by_end *= share; }
  __device__ bool counts() const { return weight != 0 || by_start != 0 || by_end != 0; }
};

struct TapList {
  int length;
  int inside;  // samples of the bin that lie on the map
};

// The merged taps of one bin, pixels rising, into `taps` where it is not null. Samples come with
// rising positions, so two pending pixels are enough to merge.
template <typename TapType, typename T>
__device__ __noinline__ TapList merge_taps(const AxisSampler<T>& axis, int bin, TapType* taps) {
  TapType low{}, high{};
  low.pixel = high.pixel = -1;
  TapList list{0, 0};
  const T share = T(1) / static_cast<T>(axis.samples);
  auto emit = [&](TapType tap) {
    if (tap.pixel < 0 || !tap.counts()) return;
    tap.scale(share);
    if (taps != nullptr) taps[list.length] = tap;
    ++list.length;
  };
  axis.for_each_tap(bin, [&](const AxisTap<T>& tap) {
    ++list.inside;
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int pixel = tap.pixel[side];
      if (pixel != low.pixel && pixel != high.pixel) {
        emit(low);
        low = high;
        high = TapType{};
        high.pixel = pixel;
      }
      (pixel == low.pixel ? low : high).add(tap, side, axis);
    }
  });
  emit(low);
  emit(high);
  return list;
}

// The lists of a block. Item (s, a, b) is bin b of the tile along axis a in source s.
template <typename TapType, typename T>
struct TapTables {
  T* coverage;  // [items] share of the bin's samples that lie on the map
  int* begin;   // [items + 1] taps[begin[i] .. begin[i + 1]) are the taps of item i
  TapType* taps;
  int bins[2], items, capacity;

  __device__ int item(int s, int a, int b) const {
    return s * (bins[0] + bins[1]) + a * bins[0] + b;
  }
};

template <typename TapType, typename T>
__device__ TapTables<TapType, T> lay_out_tables(const BlockTask& task, int sources,
                                                unsigned char* memory, int bytes) {
  TapTables<TapType, T> t;
  t.bins[0] = task.bins[0];
  t.bins[1] = task.bins[1];
  t.items = sources * (task.bins[0] + task.bins[1]);
  t.coverage = reinterpret_cast<T*>(memory);
  t.begin = reinterpret_cast<int*>(t.coverage + t.items);
  const int head = t.items * static_cast<int>(sizeof(T)) + (t.items + 1) * 4;
  const int aligned = (head + 15) / 16 * 16;
  t.taps = reinterpret_cast<TapType*>(memory + aligned);
  t.capacity = (bytes - aligned) / static_cast<int>(sizeof(TapType));
  return t;
}

// Fills the tables. False (for the whole block) when the lists are longer than their memory, which
// takes maps of thousands of pixels a side; coverage is filled all the same. Ends with a barrier.
template <typename TapType, typename T>
__device__ bool fill_tables(const SeparableArgs& args, const Sources<T>& sources,
                            const BlockTask& task, const TapTables<TapType, T>& t) {
  __shared__ int partial[kWarp];
  const int per_source = t.bins[0] + t.bins[1];
  const bool one_warp = t.items <= kWarp;  // then the others only wait
  const int threads = one_warp ? kWarp : blockDim.x;
  int base = 0;
  for (int start = 0; start < t.items && static_cast<int>(threadIdx.x) < threads;
       start += threads) {
    const int i = start + threadIdx.x, s = i / per_source, rest = i % per_source;
    const int a = rest < t.bins[0] ? 0 : 1, bin = task.bin[a] + rest - a * t.bins[0];
    AxisSampler<T> axis;
    int length = 0, at, total;
    if (i < t.items) {
      axis = make_axis(args, sources.roi, sources.level + s, a);
      const TapList list = merge_taps<TapType>(axis, bin, static_cast<TapType*>(nullptr));
      length = list.length;
      t.coverage[i] = static_cast<T>(list.inside) / static_cast<T>(axis.samples);
    }
    if (one_warp) {
      const int inclusive = warp_inclusive_scan(length);
      total = __shfl_sync(kFullMask, inclusive, kWarp - 1);
      at = inclusive - length;
    } else {
      at = block_exclusive_scan(length, partial, &total);
    }
    at += base;
    base += total;
    if (i < t.items) t.begin[i] = at;
    if (i < t.items && base <= t.capacity) merge_taps(axis, bin, t.taps + at);
  }
  if (threadIdx.x == 0) t.begin[t.items] = base;
  __syncthreads();
  return t.begin[t.items] <= t.capacity;
}

}  // namespace segroi::cuda
