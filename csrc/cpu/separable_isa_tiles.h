// Interleaved crops with windows larger than the caches, many at a time: all of them read one tile
// of a map before the next. A crop is the sum of what it reads in each tile, in the tiles' order,
// so it does not depend on the crops that come along.
#pragma once

#include "cpu/separable_isa.h"

namespace {

constexpr int kTileRows = 16;
constexpr int64_t kTileValues = 128 << 10;         // of a tile, half of a small second-level cache
constexpr int64_t kCropValues = int64_t{2} << 20;  // sums that are kept beside the crops

// The entries with inputs in the range; inputs rise.
template <typename T>
inline TapList<T> within(const TapList<T>& taps, Range inputs) {
  int begin = 0, end = taps.count;
  while (begin < end && taps.input[begin] < inputs.begin) ++begin;
  while (begin < end && taps.input[end - 1] >= inputs.end) --end;
  return {taps.input + begin, taps.weight + begin, end - begin};
}

// The slots whose pixels lie in [first, first + count).
template <typename T>
inline Range slots_within(const AxisTable<T>& axis, int first, int count) {
  const auto find = [&](int pixel) {
    int low = 0, high = axis.pixels;
    while (low < high) {
      const int middle = (low + high) / 2;
      (axis.pixel[middle] < pixel ? low : high) = axis.pixel[middle] < pixel ? middle + 1 : middle;
    }
    return low;
  };
  return {find(first), find(first + count)};
}

// Where the sums of a crop are kept, channels side by side.
template <typename T>
struct Sums {
  T* data;
  int64_t y, x;
};

// Adds what the slots (y, x) of a source give.
template <class V, typename S, typename T = typename V::T>
void add_slots(const CropTask<T>& task, const Pooled<T>& source, Range y, Range x,
               const Sums<T>& sums, Scratch& scratch) {
  const int64_t n = task.channels;
  T* rows = scratch.get<T>(Scratch::kRows, (x.end - x.begin) * n);
  for (int p = 0; p < task.bins_h; ++p) {
    const TapList<T> down = within(list(source.y.taps, p), y);
    if (down.count == 0) continue;
    sum_interleaved_rows<V, S>(source, task.channel, n, down, x, rows, scratch);
    for (int q = 0; q < task.bins_w; ++q) {
      const TapList<T> along = within(list(source.x.taps, q), x);
      if (along.count == 0) continue;
      combine<V, true>(sums.data + p * sums.y + q * sums.x, n, Rows<T>{rows, n, nullptr, x.begin},
                       along);
    }
  }
}

// Adds source i of the tasks, which all read one map.
template <class V, typename S, typename T = typename V::T>
void add_map(const CropTask<T>* tasks, int64_t count, int i, const Sums<T>* sums,
             Scratch& scratch) {
  Range y{1 << 30, 0}, x{1 << 30, 0};  // what any of them reads
  const auto include = [](const AxisTable<T>& axis, Range& range) {
    range.begin = smaller(range.begin, axis.pixel[0]);
    range.end = -smaller(-range.end, -(axis.pixel[axis.pixels - 1] + 1));
  };
  for (int64_t k = 0; k < count; ++k) {
    const Pooled<T>& source = tasks[k].sources[i];
    if (reads_nothing(source)) continue;
    include(source.y, y);
    include(source.x, x);
  }
  const int64_t fitting = kTileValues / (kTileRows * tasks[0].channels);
  const int columns = static_cast<int>(fitting < 8 ? 8 : smaller<int64_t>(fitting, 1 << 20));
  for (int row = y.begin / kTileRows * kTileRows; row < y.end; row += kTileRows) {
    for (int column = x.begin / columns * columns; column < x.end; column += columns) {
      for (int64_t k = 0; k < count; ++k) {
        const Pooled<T>& source = tasks[k].sources[i];
        if (reads_nothing(source)) continue;
        const Range down = slots_within(source.y, row, kTileRows);
        if (down.begin == down.end) continue;
        const Range along = slots_within(source.x, column, columns);
        if (along.begin == along.end) continue;
        add_slots<V, S>(tasks[k], source, down, along, sums[k], scratch);
      }
    }
  }
}

template <class V, typename S, typename T = typename V::T>
void store_sums(const CropTask<T>& task, const Sums<T>& sums) {
  const Strides& stride = task.crop_stride;
  S* crop = static_cast<S*>(task.crop) + task.channel * stride.c;
  for (int p = 0; p < task.bins_h; ++p) {
    for (int q = 0; q < task.bins_w; ++q) {
      T* row = sums.data + p * sums.y + q * sums.x;
      if (extrapolates(task)) {
        const T outside = outside_part(task, p, q);
        for (int64_t c = 0; c < task.channels; ++c) row[c] += outside;
      }
      convert<V>(row, 1, crop + p * stride.y + q * stride.x, stride.c, task.channels);
    }
  }
}

// The tasks have all channels, and as many sources each.
template <class V, typename S, typename T = typename V::T>
void crop_tiles(const CropTask<T>* tasks, int64_t count, Scratch& scratch) {
  if (count == 0) return;
  const int64_t n = tasks[0].channels, bins_w = tasks[0].bins_w;
  const int64_t values = tasks[0].bins_h * bins_w * n;
  const bool direct =
      std::is_same_v<S, T> && tasks[0].crop_stride.c == 1 && !extrapolates(tasks[0]);
  const int64_t most = direct ? count : smaller<int64_t>(kCropValues / values + 1, count);
  if (most < count) {  // in parts
    crop_tiles<V, S>(tasks, most, scratch);
    return crop_tiles<V, S>(tasks + most, count - most, scratch);
  }
  T* beside = direct ? nullptr : scratch.get<T>(Scratch::kTile, count * values);
  Sums<T>* sums = scratch.get<Sums<T>>(Scratch::kCrop, count);
  for (int64_t k = 0; k < count; ++k) {
    const Strides& stride = tasks[k].crop_stride;
    T* crop = static_cast<T*>(tasks[k].crop) + tasks[k].channel;
    sums[k] =
        direct ? Sums<T>{crop, stride.y, stride.x} : Sums<T>{beside + k * values, bins_w * n, n};
    for (int p = 0; p < tasks[k].bins_h; ++p) {
      for (int q = 0; q < bins_w; ++q) {
        std::memset(sums[k].data + p * sums[k].y + q * sums[k].x, 0, n * sizeof(T));
      }
    }
  }
  for (int i = 0; i < tasks[0].count; ++i) {
    for (int64_t k = 0, end; k < count; k = end) {
      const void* map = tasks[k].sources[i].data;
      for (end = k + 1; end < count && tasks[end].sources[i].data == map;) ++end;
      add_map<V, S>(tasks + k, end - k, i, sums + k, scratch);
    }
  }
  if (direct) return;
  for (int64_t k = 0; k < count; ++k) store_sums<V, S>(tasks[k], sums[k]);
}

}  // namespace
