// The kernels, for the instruction set that the including file has chosen.
//
// Planar: a vector is a piece of a row. Sum rows vertically for some channels, then pick columns by
// lanes. Interleaved: a vector is a run of channels of one pixel; both directions are sums of rows.
#pragma once

#include "cpu/separable_vector.h"
#include "cpu/streaming.h"

namespace {

using segroi::cpu::AxisTable;
using segroi::cpu::CropTask;
using segroi::cpu::Element;
using segroi::cpu::Kernels;
using segroi::cpu::Pooled;
using segroi::cpu::Scratch;
using segroi::cpu::Strides;
using segroi::cpu::TileTask;

constexpr int64_t kPlanarValues = 12 << 10;  // of summed rows, so that they stay in the caches
constexpr int64_t kInterleavedValues = 32 << 10;

template <typename T>
inline bool reads_nothing(const Pooled<T>& source) {
  return source.y.pixels == 0 || source.x.pixels == 0;
}

// What samples outside the map add to bin (p, q).
template <typename T>
inline T outside_part(const CropTask<T>& task, int p, int q) {
  const T outside = 1 - task.sources[0].y.share[p] * task.sources[0].x.share[q];
  return outside == 0 ? T(0) : static_cast<T>(task.extrapolation) * outside;
}

template <typename T>
inline bool extrapolates(const CropTask<T>& task) {
  return task.extrapolation != 0 && task.count == 1;
}

// n values of one type, past the caches.
template <typename T, typename S>
inline void stream_values(const T* src, int64_t n, S* dst) {
  segroi::copy_bytes<true>(reinterpret_cast<char*>(dst), reinterpret_cast<const char*>(src),
                           n * static_cast<int64_t>(sizeof(T)));
}

// First and last input of outputs [begin, end).
struct Range {
  int begin, end;
};
template <typename T>
Range input_range(const Taps<T>& taps, int begin, int end) {
  Range range{taps.inputs, 0};
  for (int i = taps.begin[begin]; i < taps.begin[end]; ++i) {
    if (taps.input[i] < range.begin) range.begin = taps.input[i];
    if (taps.input[i] >= range.end) range.end = taps.input[i] + 1;
  }
  return range;
}

// The rows of a planar source that bins [p, end) read, for `channels` channels, `step` apart.
template <class V, typename S, typename T = typename V::T>
Rows<T> planar_rows(const Pooled<T>& source, int64_t channel, int channels, int p, int end,
                    Scratch& scratch, int64_t* step) {
  const S* data = static_cast<const S*>(source.data) + channel * source.stride.c;
  const int first = source.x.pixel[0], n = source.x.pixels;
  if constexpr (std::is_same_v<S, T>) {
    if (source.stride.x == 1) {
      *step = source.stride.c;
      return {data + first, source.stride.y, source.y.pixel, 0};
    }
  }
  const Range slots = input_range(source.y.taps, p, end);
  *step = static_cast<int64_t>(slots.end - slots.begin) * n;
  T* window = scratch.get<T>(Scratch::kWindow, channels * *step);
  for (int c = 0; c < channels; ++c) {
    const S* plane = data + c * source.stride.c + first * source.stride.x;
    T* to = window + c * *step;
    for (int i = slots.begin; i < slots.end; ++i, to += n) {
      convert<V>(plane + source.y.pixel[i] * source.stride.y, source.stride.x, to, 1, n);
    }
  }
  return {window, n, nullptr, slots.begin};
}

template <class V, typename T = typename V::T>
inline int64_t padded(int64_t n) {
  const int64_t unit = n > V::kWidth ? 2 * V::kWidth : V::kWidth;
  return (n + unit - 1) / unit * unit;
}

// Sums rows for bins [p, end) of C channels into rows[c][bin][padded width].
template <class V, typename S, int C, typename T = typename V::T>
void sum_planar_rows(const Pooled<T>& source, int64_t channel, int p, int end, T* rows,
                     Scratch& scratch) {
  int64_t step;
  const Rows<T> window = planar_rows<V, S>(source, channel, C, p, end, scratch, &step);
  const int64_t n = source.x.pixels, width = padded<V>(n), plane = (end - p) * width;
  for (int bin = p; bin < end; ++bin, rows += width) {
    const TapList<T> taps = list(source.y.taps, bin);
    combine_planes<V, false, C>(rows, plane, n, window, step, taps);
  }
}

template <class V, typename S, typename T = typename V::T>
void store_planar(const CropTask<T>& task, int64_t channel, int channels, int p, int end, T* crop) {
  const Strides& stride = task.crop_stride;
  const int64_t bins = task.bins_w;
  S* to = static_cast<S*>(task.crop) + channel * stride.c + p * stride.y;
  for (int c = 0; c < channels; ++c, to += stride.c, crop += (end - p) * bins) {
    if (extrapolates(task)) {
      for (int64_t i = 0; i < (end - p) * bins; ++i) {
        crop[i] += outside_part(task, p + static_cast<int>(i / bins), static_cast<int>(i % bins));
      }
    }
    convert_rows<V>(crop, {bins, 1}, to, {stride.y, stride.x}, end - p, bins);
  }
}

// Bins [p, end) of C channels.
template <class V, typename S, int C, typename T = typename V::T>
void crop_planes(const CropTask<T>& task, int64_t channel, int p, int end, Scratch& scratch) {
  const Strides& stride = task.crop_stride;
  const int64_t rows = static_cast<int64_t>(end - p) * C, bins = task.bins_w;
  const bool dense = stride.x == 1 && stride.y == bins && stride.c == task.bins_h * bins;
  const bool whole = std::is_same_v<S, T> && dense && end - p == task.bins_h && !extrapolates(task);
  S* target = static_cast<S*>(task.crop) + channel * stride.c;
  const bool direct = whole && !task.stream;
  T* crop = direct ? reinterpret_cast<T*>(target) : scratch.get<T>(Scratch::kCrop, rows * bins);
  bool written = false;
  for (int i = 0; i < task.count; ++i) {
    const Pooled<T>& source = task.sources[i];
    if (reads_nothing(source)) continue;
    const int64_t n = source.x.pixels, width = padded<V>(n);
    T* summed = scratch.get<T>(Scratch::kRows, rows * width);
    sum_planar_rows<V, S, C>(source, channel, p, end, summed, scratch);
    const auto run = written ? spread<V, true> : spread<V, false>;
    run(summed, width, n, rows, source.x.lanes, crop, bins, bins);
    written = true;
  }
  if (!written) std::memset(crop, 0, rows * bins * sizeof(T));
  if (direct) return;
  if (whole) return stream_values(crop, rows * bins, target);
  store_planar<V, S>(task, channel, C, p, end, crop);
}

template <class V, typename S, typename T = typename V::T>
void crop_planar(const CropTask<T>& task, Scratch& scratch) {
  int64_t width = 1;
  for (int i = 0; i < task.count; ++i) {
    const int64_t n = padded<V>(task.sources[i].x.pixels);
    if (n > width) width = n;
  }
  const int64_t fitting = kPlanarValues / (V::kPlanes * width);
  const int rows = static_cast<int>(fitting < 1 ? 1 : smaller<int64_t>(fitting, task.bins_h));
  const int64_t stop = task.channel + task.channels;
  int64_t c = task.channel;
  for (; c + V::kPlanes <= stop; c += V::kPlanes) {
    for (int p = 0; p < task.bins_h; p += rows) {
      crop_planes<V, S, V::kPlanes>(task, c, p, smaller(p + rows, task.bins_h), scratch);
    }
  }
  for (; c < stop; ++c) {
    for (int p = 0; p < task.bins_h; p += rows) {
      crop_planes<V, S, 1>(task, c, p, smaller(p + rows, task.bins_h), scratch);
    }
  }
}

// Sums the rows that the taps name, inputs rising: columns [x.begin, x.end) of the window, n
// channels each, to rows.
template <class V, typename S, typename T = typename V::T>
void sum_interleaved_rows(const Pooled<T>& source, int64_t channel, int64_t n,
                          const TapList<T>& taps, Range x, T* rows, Scratch& scratch) {
  const S* data = static_cast<const S*>(source.data) + channel * source.stride.c;
  const Strides& stride = source.stride;
  const int* pixels = source.x.pixel;
  const int64_t count = x.end - x.begin, step = count * n;
  if constexpr (std::is_same_v<S, T> || V::kShorts) {
    if (stride.c == 1) {
      const int first = pixels[x.begin];
      if (stride.x == n && pixels[x.end - 1] - first == count - 1) {
        const Rows<S> all{data + first * stride.x, stride.y, source.y.pixel, 0};
        return combine<V, false>(rows, step, all, taps);
      }
      for (int i = x.begin; i < x.end; ++i, rows += n) {
        const Rows<S> pixel{data + pixels[i] * stride.x, stride.y, source.y.pixel, 0};
        combine<V, false>(rows, n, pixel, taps);
      }
      return;
    }
  }
  if (taps.count == 0) {
    std::memset(rows, 0, step * sizeof(T));
    return;
  }
  const Range slots{taps.input[0], taps.input[taps.count - 1] + 1};
  T* window = scratch.get<T>(Scratch::kWindow, (slots.end - slots.begin) * step);
  T* to = window;
  for (int i = slots.begin; i < slots.end; ++i) {
    for (int j = x.begin; j < x.end; ++j, to += n) {
      convert<V>(data + source.y.pixel[i] * stride.y + pixels[j] * stride.x, stride.c, to, 1, n);
    }
  }
  combine<V, false>(rows, step, Rows<T>{window, step, nullptr, slots.begin}, taps);
}

// One row of bins, n channels.
template <class V, typename S, typename T = typename V::T>
void crop_pixels(const CropTask<T>& task, int64_t channel, int64_t n, int p, Scratch& scratch) {
  const Strides& stride = task.crop_stride;
  const bool dense = std::is_same_v<S, T> && stride.c == 1;
  const bool direct = dense && !task.stream && !extrapolates(task);
  S* target = static_cast<S*>(task.crop) + channel * stride.c + p * stride.y;
  const int64_t step = direct ? stride.x : n;
  T* crop = direct ? reinterpret_cast<T*>(target) : scratch.get<T>(Scratch::kCrop, task.bins_w * n);
  bool written = false;
  for (int i = 0; i < task.count; ++i) {
    const Pooled<T>& source = task.sources[i];
    if (reads_nothing(source)) continue;
    T* summed = scratch.get<T>(Scratch::kRows, source.x.pixels * n);
    sum_interleaved_rows<V, S>(source, channel, n, list(source.y.taps, p), {0, source.x.pixels},
                               summed, scratch);
    const auto run = written ? combine<V, true, T> : combine<V, false, T>;
    for (int q = 0; q < task.bins_w; ++q) {
      run(crop + q * step, n, Rows<T>{summed, n, nullptr, 0}, list(source.x.taps, q));
    }
    written = true;
  }
  for (int q = 0; q < task.bins_w; ++q) {
    T* row = crop + q * step;
    if (!written) std::memset(row, 0, n * sizeof(T));
    if (extrapolates(task)) {
      const T outside = outside_part(task, p, q);
      for (int64_t i = 0; i < n; ++i) row[i] += outside;
    }
    if (direct) continue;
    if (dense && task.stream) {
      stream_values(row, n, target + q * stride.x);
    } else {
      convert<V>(row, 1, target + q * stride.x, stride.c, n);
    }
  }
}

template <class V, typename S, typename T = typename V::T>
void crop_interleaved(const CropTask<T>& task, Scratch& scratch) {
  int64_t pixels = 1;
  for (int i = 0; i < task.count; ++i) {
    if (task.sources[i].x.pixels > pixels) pixels = task.sources[i].x.pixels;
  }
  int64_t block = 16 * V::kWidth;
  while (block > V::kWidth && block * pixels > kInterleavedValues) block /= 2;
  for (int64_t c = 0; c < task.channels; c += block) {
    const int64_t n = smaller(block, task.channels - c);
    for (int p = 0; p < task.bins_h; ++p) {
      crop_pixels<V, S>(task, task.channel + c, n, p, scratch);
    }
  }
}

}  // namespace
