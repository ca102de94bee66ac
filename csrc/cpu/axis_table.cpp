// Merging the samples of an axis into taps, and arranging taps for vector lanes.
#include "cpu/axis_table.h"

#include <algorithm>

namespace segroi::cpu {
namespace {

constexpr size_t kChunkBytes = 64 << 10;

// Taps of all bins, with positions on the map as inputs.
template <typename T>
struct Merged {
  std::vector<int> begin, pixel;
  std::vector<T> weight, share;
};

// Positions rise within a bin, so a pixel that is there already is among the last two.
template <typename T>
void add_tap(Merged<T>& merged, int first, int pixel, T weight) {
  if (weight == 0) return;  // no say, be the pixel infinite or NaN
  for (int i = static_cast<int>(merged.pixel.size()) - 1; i >= first; --i) {
    if (merged.pixel[i] == pixel) {
      merged.weight[i] += weight;
      return;
    }
    if (merged.pixel[i] < pixel) break;
  }
  merged.pixel.push_back(pixel);
  merged.weight.push_back(weight);
}

template <typename T>
void add_sample(Merged<T>& merged, int first, const AxisSampler<T>& axis, const AxisTap<T>& tap,
                Weights weights) {
  if (weights == Weights::value) {
    add_tap(merged, first, tap.pixel[0], tap.weight[0]);
    add_tap(merged, first, tap.pixel[1], tap.weight[1]);
    return;
  }
  const T slope = tap.slope * axis.scale * (weights == Weights::d_end ? tap.u : 1 - tap.u);
  add_tap(merged, first, tap.pixel[0], -slope);
  add_tap(merged, first, tap.pixel[1], slope);
}

template <typename T>
void merge(const AxisSampler<T>& axis, Weights weights, Merged<T>& merged) {
  merged.begin.assign(1, 0);
  merged.pixel.clear();
  merged.weight.clear();
  merged.share.clear();
  for (int bin = 0; bin < axis.bins; ++bin) {
    const int first = merged.begin.back();
    int inside = 0;
    if (axis.samples > 0) {
      axis.for_each_tap(bin, [&](const AxisTap<T>& tap) {
        ++inside;
        add_sample(merged, first, axis, tap, weights);
      });
    }
    const T samples = static_cast<T>(std::max(axis.samples, 1));
    for (size_t i = first; i < merged.weight.size(); ++i) merged.weight[i] /= samples;
    merged.share.push_back(static_cast<T>(inside) / samples);
    merged.begin.push_back(static_cast<int>(merged.pixel.size()));
  }
}

template <typename U>
U* copy(const std::vector<U>& from, Arena& arena) {
  U* to = arena.take<U>(from.size());
  std::copy(from.begin(), from.end(), to);
  return to;
}

// Where a list of [low, high] should begin: vectors on cache lines (where rows are) are read and
// written at twice the speed, which is worth the pixels before `low` unless they take more vectors.
int first_pixel(int low, int high, int width) {
  const auto vectors = [width](int pixels) { return (pixels + width - 1) / width; };
  const int aligned = low / width * width, more = vectors(high + 1 - aligned);
  return 4 * more <= 5 * vectors(high + 1 - low) ? aligned : low;
}

// Lists the pixels that are read, and replaces positions on the map by positions in that list.
template <typename T>
void list_pixels(Merged<T>& merged, const TableForm& form, AxisTable<T>& table, Arena& arena) {
  if (merged.pixel.empty()) return;
  const auto [low, high] = std::minmax_element(merged.pixel.begin(), merged.pixel.end());
  const int first = form.span ? first_pixel(*low, *high, form.width) : *low;
  const int length = *high - first + 1;
  std::vector<int> slot(length, form.span ? 1 : 0);
  for (int pixel : merged.pixel) slot[pixel - first] = 1;
  int* pixels = arena.take<int>(length);
  for (int i = 0; i < length; ++i) {
    if (!slot[i]) continue;
    pixels[table.pixels] = first + i;
    slot[i] = table.pixels++;
  }
  for (int& pixel : merged.pixel) pixel = slot[pixel - first];
  table.pixel = pixels;
}

template <typename T>
Taps<T> by_bin(const Merged<T>& merged, int bins, int pixels, Arena& arena) {
  return {bins, pixels, copy(merged.begin, arena), copy(merged.pixel, arena),
          copy(merged.weight, arena)};
}

template <typename T>
Taps<T> by_pixel(const Merged<T>& merged, int bins, int pixels, Arena& arena) {
  const size_t count = merged.pixel.size();
  int* begin = arena.take<int>(pixels + 1);
  int* bin_of = arena.take<int>(count);
  T* weight = arena.take<T>(count);
  std::fill(begin, begin + pixels + 1, 0);
  for (int pixel : merged.pixel) ++begin[pixel + 1];
  for (int i = 0; i < pixels; ++i) begin[i + 1] += begin[i];
  std::vector<int> next(begin, begin + pixels);
  for (int bin = 0; bin < bins; ++bin) {
    for (int i = merged.begin[bin]; i < merged.begin[bin + 1]; ++i) {
      const int at = next[merged.pixel[i]]++;
      bin_of[at] = bin;
      weight[at] = merged.weight[i];
    }
  }
  return {pixels, bins, begin, bin_of, weight};
}

// One block of outputs: repeatedly the window of inputs that begins at the first one left.
template <typename T>
struct LaneBuilder {
  const Taps<T>& taps;
  int width;
  std::vector<LaneSegment> segments;
  std::vector<uint8_t> index;
  std::vector<T> weight;

  void block(int number) {
    const int first = number * width, lanes = std::min(width, taps.outputs - first);
    std::vector<int> next(taps.begin + first, taps.begin + first + lanes);
    for (;;) {
      int base = taps.inputs;
      for (int i = 0; i < lanes; ++i) {
        if (next[i] < taps.begin[first + i + 1]) base = std::min(base, taps.input[next[i]]);
      }
      if (base == taps.inputs) return;
      if (taps.inputs < width) base = 0;  // one vector for all blocks
      segments.push_back({number, base, segment(first, lanes, base, next)});
    }
  }

  int segment(int first, int lanes, int base, std::vector<int>& next) {
    const size_t start = index.size();
    int steps = 0;
    for (int i = 0; i < lanes; ++i) {
      int& at = next[i];
      for (int step = 0; at < taps.begin[first + i + 1]; ++at, ++step) {
        const int offset = taps.input[at] - base;
        if (offset >= 2 * width - 1) break;
        if (step == steps) add_step(++steps, start);
        index[start + step * width + i] = static_cast<uint8_t>(offset);
        weight[start + step * width + i] = taps.weight[at];
      }
    }
    return steps;
  }

  void add_step(int steps, size_t start) {
    index.resize(start + steps * width, static_cast<uint8_t>(2 * width - 1));
    weight.resize(start + steps * width, T(0));
  }
};

template <typename T>
Lanes<T> lanes_of(const Taps<T>& taps, int width, Arena& arena) {
  LaneBuilder<T> builder{taps, width, {}, {}, {}};
  for (int block = 0; block * width < taps.outputs; ++block) {
    const size_t before = builder.segments.size();
    builder.block(block);
    if (builder.segments.size() == before) builder.segments.push_back({block, 0, 0});
  }
  return {copy(builder.segments, arena), static_cast<int>(builder.segments.size()),
          copy(builder.index, arena), copy(builder.weight, arena)};
}

}  // namespace

void* Arena::allocate(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (bytes > left_) {
    const size_t size = std::max(kChunkBytes, bytes);
    chunks_.emplace_back(new char[size + 64]);
    const uintptr_t start = reinterpret_cast<uintptr_t>(chunks_.back().get());
    next_ = chunks_.back().get() + ((64 - start % 64) & 63);
    left_ = size;
  }
  char* taken = next_;
  next_ += bytes;
  left_ -= bytes;
  return taken;
}

template <typename T>
AxisTable<T> build_axis_table(const AxisSampler<T>& axis, const TableForm& form, Arena& arena) {
  thread_local Merged<T> merged;  // reused: building a table costs about as much as an allocation
  merge(axis, form.weights, merged);
  AxisTable<T> table;
  table.bins = axis.bins;
  table.share = copy(merged.share, arena);
  list_pixels(merged, form, table, arena);
  table.taps = form.transposed ? by_pixel(merged, axis.bins, table.pixels, arena)
                               : by_bin(merged, axis.bins, table.pixels, arena);
  if (form.width > 0) table.lanes = lanes_of(table.taps, form.width, arena);
  return table;
}

template AxisTable<float> build_axis_table(const AxisSampler<float>&, const TableForm&, Arena&);
template AxisTable<double> build_axis_table(const AxisSampler<double>&, const TableForm&, Arena&);

}  // namespace segroi::cpu
