// Backward kernels: all RoIs that reach a tile of a gradient map, added in order. Included like
// separable_isa.h.
#pragma once

#include "cpu/separable_isa_tiles.h"

namespace {

// Where a tile is summed: in place, or in a buffer that is converted at the end.
template <typename T>
struct Tile {
  T* data;
  int64_t c, y, x;
};

// Visits the runs of elements of a tile that are contiguous in the buffer, as long as they go:
// visit(map offset, map step, length, tile offset).
template <typename T, typename Visit>
void for_each_run(const TileTask<T>& task, const Tile<T>& tile, Visit visit) {
  struct Axis {
    int64_t size, map, tile;
  };
  const Axis x{task.width, task.stride.x, tile.x}, y{task.rows, task.stride.y, tile.y},
      c{task.channels, task.stride.c, tile.c};
  const bool planar = tile.x == 1;
  const Axis axes[3] = {planar ? x : c, planar ? y : x, planar ? c : y};
  int64_t length = 1;
  int joined = 0;
  while (joined < 3 && axes[joined].tile == length && axes[joined].map == length * axes[0].map) {
    length *= axes[joined++].size;
  }
  const int64_t first = task.row * task.stride.y + task.channel * task.stride.c;
  for (int64_t i = 0; i < (joined > 2 ? 1 : axes[2].size); ++i) {
    for (int64_t j = 0; j < (joined > 1 ? 1 : axes[1].size); ++j) {
      visit(first + i * axes[2].map + j * axes[1].map, axes[0].map, length,
            i * axes[2].tile + j * axes[1].tile);
    }
  }
}

template <class V, typename S, typename T = typename V::T>
Tile<T> open_tile(const TileTask<T>& task, bool planar, Scratch& scratch, bool* in_place) {
  const Strides& stride = task.stride;
  *in_place = std::is_same_v<S, T> && (planar ? stride.x : stride.c) == 1;
  S* data = static_cast<S*>(task.data);
  Tile<T> tile{nullptr, stride.c, stride.y, stride.x};
  if constexpr (std::is_same_v<S, T>) {
    if (*in_place) tile.data = data + task.channel * stride.c + task.row * stride.y;
  }
  if (!*in_place) {
    const int64_t width = task.width, rows = task.rows, n = task.channels;
    tile = planar ? Tile<T>{nullptr, rows * width, width, 1} : Tile<T>{nullptr, 1, width * n, n};
    tile.data = scratch.get<T>(Scratch::kTile, rows * width * n);
  }
  for_each_run(task, tile, [&](int64_t from, int64_t step, int64_t n, int64_t to) {
    if (!task.accumulate) {
      std::memset(tile.data + to, 0, n * sizeof(T));
    } else if (!*in_place) {
      convert<V>(data + from, step, tile.data + to, 1, n);
    }
  });
  return tile;
}

template <class V, typename S, typename T = typename V::T>
void close_tile(const TileTask<T>& task, const Tile<T>& tile) {
  for_each_run(task, tile, [&](int64_t to, int64_t step, int64_t n, int64_t from) {
    convert<V>(tile.data + from, 1, static_cast<S*>(task.data) + to, step, n);
  });
}

// The rows of a source that lie in the tile (slots), and the bins that read them.
struct Reach {
  Range slots, bins;
};
template <typename T>
Reach reach(const AxisTable<T>& y, int row, int rows) {
  Reach found{{0, y.pixels}, {0, 0}};
  while (found.slots.begin < y.pixels && y.pixel[found.slots.begin] < row) ++found.slots.begin;
  while (found.slots.end > found.slots.begin && y.pixel[found.slots.end - 1] >= row + rows) {
    --found.slots.end;
  }
  if (found.slots.begin < found.slots.end) {
    found.bins = input_range(y.taps, found.slots.begin, found.slots.end);
  }
  return found;
}

// Bins [begin, end) of C channels of a crop's gradient as rows of bins_w values, `step` apart.
template <class V, typename S, int C, typename T = typename V::T>
const T* planar_gradient(const S* crop, const Strides& stride, Range bins, int bins_h, int bins_w,
                         Scratch& scratch) {
  if constexpr (std::is_same_v<S, T>) {
    const bool whole = bins.end - bins.begin == bins_h;
    if (whole && stride.x == 1 && stride.y == bins_w && stride.c == int64_t{bins_h} * bins_w) {
      return crop;
    }
  }
  const int64_t count = bins.end - bins.begin;
  T* rows = scratch.get<T>(Scratch::kCrop, C * count * bins_w);
  for (int c = 0; c < C; ++c) {
    const S* plane = crop + c * stride.c + bins.begin * stride.y;
    convert_rows<V>(plane, {stride.y, stride.x}, rows + c * count * bins_w, {bins_w, 1}, count,
                    bins_w);
  }
  return rows;
}

// Adds one source to C channels of a tile.
template <class V, typename S, int C, typename T = typename V::T>
void add_planes(const TileTask<T>& task, const Pooled<T>& source, const Reach& found, const S* crop,
                T* tile, const Tile<T>& step, Scratch& scratch) {
  const int64_t n = source.x.pixels, width = padded<V>(n),
                count = found.bins.end - found.bins.begin;
  const int bins_w = source.x.bins;
  const T* gradient =
      planar_gradient<V, S, C>(crop, task.crop_stride, found.bins, source.y.bins, bins_w, scratch);
  T* spread_to = scratch.get<T>(Scratch::kRows, C * count * width);
  spread<V, false>(gradient, bins_w, bins_w, C * count, source.x.lanes, spread_to, width, n);
  for (int slot = found.slots.begin; slot < found.slots.end; ++slot) {
    const TapList<T> taps = list(source.y.taps, slot);
    T* row = tile + (source.y.pixel[slot] - task.row) * step.y + source.x.pixel[0];
    const Rows<T> rows{spread_to, width, nullptr, found.bins.begin};
    combine_planes<V, true, C>(row, step.c, n, rows, count * width, taps);
  }
}

// Every source that reads the tile is added in reading order: add(source, its reach, its gradient
// from the task's first channel on, tile).
template <class V, typename S, class Add, typename T = typename V::T>
inline void add_sources(const TileTask<T>& task, bool planar, Scratch& scratch, const Add& add) {
  bool in_place;
  const Tile<T> tile = open_tile<V, S>(task, planar, scratch, &in_place);
  for (int64_t i = 0; i < task.count; ++i) {
    const Pooled<T>& source = *task.sources[i];
    if (reads_nothing(source)) continue;
    const Reach found = reach(source.y, task.row, task.rows);
    if (found.slots.begin >= found.slots.end) continue;
    const S* crop = static_cast<const S*>(task.crops[i]) + task.channel * task.crop_stride.c;
    add(source, found, crop, tile);
  }
  if (!in_place) close_tile<V, S>(task, tile);
}

template <class V, typename S, typename T = typename V::T>
void tile_planar(const TileTask<T>& task, Scratch& scratch) {
  const auto add = [&](const Pooled<T>& source, const Reach& found, const S* crop,
                       const Tile<T>& tile) {
    int64_t c = 0;
    for (; c + V::kPlanes <= task.channels; c += V::kPlanes) {
      add_planes<V, S, V::kPlanes>(task, source, found, crop + c * task.crop_stride.c,
                                   tile.data + c * tile.c, tile, scratch);
    }
    for (; c < task.channels; ++c) {
      add_planes<V, S, 1>(task, source, found, crop + c * task.crop_stride.c,
                          tile.data + c * tile.c, tile, scratch);
    }
  };
  add_sources<V, S>(task, true, scratch, add);
}

// Bin rows [begin, end) of a crop's gradient, all channels of the task: row p, bin q at
// data + (p - first) * y + q * x.
template <typename T>
struct CropRows {
  const T* data;
  int64_t y, x;
  int first;
};
template <class V, typename S, typename T = typename V::T>
CropRows<T> interleaved_gradient(const TileTask<T>& task, const S* crop, Range bins, int bins_w,
                                 Scratch& scratch) {
  const Strides& stride = task.crop_stride;
  if constexpr (std::is_same_v<S, T>) {
    if (stride.c == 1) return {crop, stride.y, stride.x, 0};
  }
  const int64_t n = task.channels;
  T* rows = scratch.get<T>(Scratch::kCrop, (bins.end - bins.begin) * bins_w * n);
  T* to = rows;
  for (int p = bins.begin; p < bins.end; ++p) {
    for (int q = 0; q < bins_w; ++q, to += n) {
      convert<V>(crop + p * stride.y + q * stride.x, stride.c, to, 1, n);
    }
  }
  return {rows, bins_w * n, n, bins.begin};
}

template <class V, typename S, typename T = typename V::T>
void add_pixels(const TileTask<T>& task, const Pooled<T>& source, const Reach& found, const S* crop,
                const Tile<T>& tile, Scratch& scratch) {
  const int64_t n = task.channels;
  const AxisTable<T>& x = source.x;
  const CropRows<T> gradient = interleaved_gradient<V, S>(task, crop, found.bins, x.bins, scratch);
  T* bins = scratch.get<T>(Scratch::kRows, x.bins * n);
  for (int slot = found.slots.begin; slot < found.slots.end; ++slot) {
    const TapList<T> taps = list(source.y.taps, slot);
    if (gradient.x == n) {
      const Rows<T> rows{gradient.data, gradient.y, nullptr, gradient.first};
      combine<V, false>(bins, x.bins * n, rows, taps);
    } else {
      for (int q = 0; q < x.bins; ++q) {
        const Rows<T> rows{gradient.data + q * gradient.x, gradient.y, nullptr, gradient.first};
        combine<V, false>(bins + q * n, n, rows, taps);
      }
    }
    T* row = tile.data + (source.y.pixel[slot] - task.row) * tile.y;
    for (int i = 0; i < x.pixels; ++i) {
      combine<V, true>(row + x.pixel[i] * tile.x, n, Rows<T>{bins, n, nullptr, 0}, list(x.taps, i));
    }
  }
}

template <class V, typename S, typename T = typename V::T>
void tile_interleaved(const TileTask<T>& task, Scratch& scratch) {
  const auto add = [&](const Pooled<T>& source, const Reach& found, const S* crop,
                       const Tile<T>& tile) {
    add_pixels<V, S>(task, source, found, crop, tile, scratch);
  };
  add_sources<V, S>(task, false, scratch, add);
}

template <class V, typename S>
Kernels<typename V::T> kernels_of() {
  return {V::kWidth,        crop_planar<V, S>, crop_interleaved<V, S>,
          crop_tiles<V, S>, tile_planar<V, S>, tile_interleaved<V, S>};
}

inline Kernels<float> float_kernels(Element element) {
  switch (element) {
    case Element::f16:
      return kernels_of<Vector, c10::Half>();
    case Element::bf16:
      return kernels_of<Vector, c10::BFloat16>();
    default:
      return kernels_of<Vector, float>();
  }
}

}  // namespace
