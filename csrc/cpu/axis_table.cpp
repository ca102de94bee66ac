// Merging the samples of an axis into taps, and arranging taps for vector lanes.
#include "cpu/axis_table.h"

#include <algorithm>

namespace segroi::cpu {
namespace {

constexpr size_t kChunkBytes = 64 << 10;

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

// Positions rise within a bin, so a pixel that is there already is among the last two.
template <typename T>
void TableBuilder<T>::add_tap(size_t first, int pixel, T weight) {
  if (weight == 0) return;  // no say, be the pixel infinite or NaN
  for (size_t i = pixel_.size(); i-- > first;) {
    if (pixel_[i] == pixel) {
      weight_[i] += weight;
      return;
    }
    if (pixel_[i] < pixel) break;
  }
  pixel_.push_back(pixel);
  weight_.push_back(weight);
}

template <typename T>
void TableBuilder<T>::merge(const AxisSampler<T>& axis, Weights weights) {
  begin_.assign(1, 0);
  pixel_.clear();
  weight_.clear();
  share_.clear();
  const T samples = static_cast<T>(std::max(axis.samples, 1));
  for (int bin = 0; bin < axis.bins; ++bin) {
    const size_t first = pixel_.size();
    int inside = 0;
    const auto add = [&](const AxisTap<T>& tap) {
      T weight[2] = {tap.weight[0], tap.weight[1]};
      if (weights != Weights::value) {
        const T u = weights == Weights::d_end ? tap.u : 1 - tap.u;
        weight[1] = tap.slope * axis.scale * u;
        weight[0] = -weight[1];
      }
      add_tap(first, tap.pixel[0], weight[0]);
      add_tap(first, tap.pixel[1], weight[1]);
      ++inside;
    };
    if (axis.samples > 0) axis.for_each_tap(bin, add);
    for (size_t i = first; i < weight_.size(); ++i) weight_[i] /= samples;
    share_.push_back(static_cast<T>(inside) / samples);
    begin_.push_back(static_cast<int>(pixel_.size()));
  }
}

// Lists the pixels that are read, and replaces positions on the map by positions in that list.
template <typename T>
void TableBuilder<T>::list_pixels(const TableForm& form, AxisTable<T>& table, Arena& arena) {
  if (pixel_.empty()) return;
  const auto [low, high] = std::minmax_element(pixel_.begin(), pixel_.end());
  const int first = form.span ? first_pixel(*low, *high, form.width) : *low;
  const int length = *high - first + 1;
  slot_.assign(length, form.span ? 1 : 0);
  for (int pixel : pixel_) slot_[pixel - first] = 1;
  int* pixels = arena.take<int>(length);
  for (int i = 0; i < length; ++i) {
    if (!slot_[i]) continue;
    pixels[table.pixels] = first + i;
    slot_[i] = table.pixels++;
  }
  for (int& pixel : pixel_) pixel = slot_[pixel - first];
  table.pixel = pixels;
}

template <typename T>
Taps<T> TableBuilder<T>::by_bin(int bins, int pixels, Arena& arena) {
  return {bins, pixels, copy(begin_, arena), copy(pixel_, arena), copy(weight_, arena)};
}

template <typename T>
Taps<T> TableBuilder<T>::by_pixel(int bins, int pixels, Arena& arena) {
  const size_t count = pixel_.size();
  int* begin = arena.take<int>(pixels + 1);
  int* bin_of = arena.take<int>(count);
  T* weight = arena.take<T>(count);
  std::fill(begin, begin + pixels + 1, 0);
  for (int pixel : pixel_) ++begin[pixel + 1];
  for (int i = 0; i < pixels; ++i) begin[i + 1] += begin[i];
  next_.assign(begin, begin + pixels);
  for (int bin = 0; bin < bins; ++bin) {
    for (int i = begin_[bin]; i < begin_[bin + 1]; ++i) {
      const int at = next_[pixel_[i]]++;
      bin_of[at] = bin;
      weight[at] = weight_[i];
    }
  }
  return {pixels, bins, begin, bin_of, weight};
}

template <typename T>
Lanes<T> TableBuilder<T>::lanes_of(const Taps<T>& taps, int width, Arena& arena) {
  segments_.clear();
  index_.clear();
  factor_.clear();
  for (int block = 0; block * width < taps.outputs; ++block) {
    const size_t before = segments_.size();
    add_block(taps, width, block);
    if (segments_.size() == before) segments_.push_back({block, 0, 0});
  }
  return {copy(segments_, arena), static_cast<int>(segments_.size()), copy(index_, arena),
          copy(factor_, arena)};
}

// One block of outputs: repeatedly the window of inputs that begins at the first one left.
template <typename T>
void TableBuilder<T>::add_block(const Taps<T>& taps, int width, int block) {
  const int first = block * width, lanes = std::min(width, taps.outputs - first);
  next_.assign(taps.begin + first, taps.begin + first + lanes);
  for (;;) {
    int base = taps.inputs;
    for (int i = 0; i < lanes; ++i) {
      if (next_[i] < taps.begin[first + i + 1]) base = std::min(base, taps.input[next_[i]]);
    }
    if (base == taps.inputs) return;
    if (taps.inputs < width) base = 0;  // one vector for all blocks
    segments_.push_back({block, base, add_segment(taps, width, first, lanes, base)});
  }
}

template <typename T>
int TableBuilder<T>::add_segment(const Taps<T>& taps, int width, int first, int lanes, int base) {
  const size_t start = index_.size();
  int steps = 0;
  for (int i = 0; i < lanes; ++i) {
    int& at = next_[i];
    for (int step = 0; at < taps.begin[first + i + 1]; ++at, ++step) {
      const int offset = taps.input[at] - base;
      if (offset >= 2 * width - 1) break;
      if (step == steps) {
        ++steps;
        index_.resize(start + steps * width, static_cast<uint8_t>(2 * width - 1));
        factor_.resize(start + steps * width, T(0));
      }
      index_[start + step * width + i] = static_cast<uint8_t>(offset);
      factor_[start + step * width + i] = taps.weight[at];
    }
  }
  return steps;
}

template <typename T>
AxisTable<T> TableBuilder<T>::build(const AxisSampler<T>& axis, const TableForm& form,
                                    Arena& arena) {
  merge(axis, form.weights);
  AxisTable<T> table;
  table.bins = axis.bins;
  table.share = copy(share_, arena);
  list_pixels(form, table, arena);
  table.taps = form.transposed ? by_pixel(axis.bins, table.pixels, arena)
                               : by_bin(axis.bins, table.pixels, arena);
  if (form.width > 0) table.lanes = lanes_of(table.taps, form.width, arena);
  return table;
}

template class TableBuilder<float>;
template class TableBuilder<double>;

}  // namespace segroi::cpu
