// The taps of one axis of one source, merged and listed by bin and by pixel.
#pragma once

#include <algorithm>
#include <vector>

#include "common/axis_taps.h"

namespace segroi {

template <typename A>
struct AxisTable {
  int bins = 0, first = 0, width = 0;  // the pixels read lie in [first, first + width)
  std::vector<int> pixels;             // those that are read, rising
  std::vector<int> begin, column;      // bin b: entries begin[b] .. begin[b + 1]; index in pixels
  std::vector<A> weight;
  std::vector<A> cover;               // share of each bin's samples that lie on the map
  std::vector<int> pixel_begin, bin;  // the same entries by pixel
  std::vector<A> pixel_weight;
  std::vector<A> to_start, to_end;  // d weight / d ends of the box, only when asked for

  int taps() const { return static_cast<int>(column.size()); }

  void build(const AxisSampler<A>& axis, bool by_pixel, bool gradients) {
    collect(axis, gradients);
    number_pixels();
    if (by_pixel) transpose();
  }

 private:
  void add(int from, int pixel, A w, A start, A end, bool gradients) {
    int at = static_cast<int>(column.size());
    for (int e = at - 1; e >= from && e >= at - 2; --e) {
      if (column[e] != pixel) continue;
      weight[e] += w;
      if (gradients) to_start[e] += start, to_end[e] += end;
      return;
    }
    column.push_back(pixel);
    weight.push_back(w);
    if (gradients) to_start.push_back(start), to_end.push_back(end);
  }

  void collect(const AxisSampler<A>& axis, bool gradients) {
    bins = axis.bins;
    begin.assign(1, 0);
    column.clear(), weight.clear(), cover.clear(), to_start.clear(), to_end.clear();
    const A share = A(1) / static_cast<A>(axis.samples > 0 ? axis.samples : 1);
    for (int b = 0; b < bins; ++b) {
      const int from = begin[b];
      int inside = 0;
      if (axis.samples > 0) {
        axis.for_each_tap(b, [&](const AxisTap<A>& tap) {
          ++inside;
          const A rate = tap.slope * share * axis.scale, start = rate * (1 - tap.u),
                  end = rate * tap.u;
          // a neighbour of weight 0 has no say, be it infinite or NaN
          add(from, tap.pixel[0], tap.weight[0] * share, -start, -end, gradients);
          if (tap.weight[1] != 0 || (gradients && tap.slope != 0)) {
            add(from, tap.pixel[1], tap.weight[1] * share, start, end, gradients);
          }
        });
      }
      cover.push_back(static_cast<A>(inside) / static_cast<A>(axis.samples > 0 ? axis.samples : 1));
      begin.push_back(taps());
    }
  }

  void number_pixels() {
    pixels.clear();
    if (column.empty()) {
      first = width = 0;
      return;
    }
    const auto [low, high] = std::minmax_element(column.begin(), column.end());
    first = *low;
    width = *high - *low + 1;
    std::vector<int> number(width, -1);
    for (int pixel : column) number[pixel - first] = 0;
    for (int i = 0; i < width; ++i) {
      if (number[i] < 0) continue;
      number[i] = static_cast<int>(pixels.size());
      pixels.push_back(first + i);
    }
    for (int& c : column) c = number[c - first];
  }

  void transpose() {
    pixel_begin.assign(pixels.size() + 1, 0);
    bin.resize(column.size());
    pixel_weight.resize(column.size());
    for (int c : column) ++pixel_begin[c + 1];
    for (size_t i = 0; i < pixels.size(); ++i) pixel_begin[i + 1] += pixel_begin[i];
    std::vector<int> next(pixel_begin.begin(), pixel_begin.end());
    for (int b = 0; b < bins; ++b) {
      for (int e = begin[b]; e < begin[b + 1]; ++e) {
        const int at = next[column[e]]++;
        bin[at] = b;
        pixel_weight[at] = weight[e];
      }
    }
  }
};

template <typename A>
struct SourceTable {
  AxisTable<A> y, x;
  bool empty() const { return y.pixels.empty() || x.pixels.empty(); }
};

}  // namespace segroi
