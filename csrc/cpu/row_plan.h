// How the NCHW kernels treat a row of pixels in vectors: which lanes of which vectors make a bin
// (forward), and which bins make a lane (backward).
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/axis_table.h"

namespace segroi {

template <typename A>
struct Lanes {
  static constexpr int count = 64 / sizeof(A);  // one AVX-512 register; two or four smaller ones
  using Index = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
};

// `lanes` outputs from two vectors of inputs: out = sum_t weight[t] * shuffle(in[0], in[1],
// index[t]).
struct LaneGroup {
  int first, lanes;  // forward: first bin of a row; backward: first column vector
  int from;          // first of the two input vectors; negative: the inputs lie farther apart
  int begin, end;    // steps t
};

template <typename A>
struct RowPlan {
  static constexpr int L = Lanes<A>::count;
  int base = 0,
      vectors = 0;      // the window: pixels [base, base + vectors * L), inside the row if it fits
  bool narrow = false;  // the row is shorter than the window's vectors
  bool pair = false;    // forward groups make two rows of bins at once
  std::vector<LaneGroup> groups;
  std::vector<typename Lanes<A>::Index> index;
  std::vector<A> weight;

  void window(const AxisTable<A>& x, int row_length) {
    groups.clear(), index.clear(), weight.clear();
    vectors = (x.width + L - 1) / L;
    base = std::max(0, std::min(x.first, row_length - vectors * L));
    narrow = base + vectors * L > row_length;
  }

  void plan_forward(const AxisTable<A>& x, int row_length) {
    window(x, row_length);
    pair = vectors == 1 && 2 * x.bins <= L;
    for (int b = 0; b < x.bins;) b += forward_group(x, b);
  }

  void plan_backward(const AxisTable<A>& x, int row_length) {
    window(x, row_length);
    std::vector<int> entry(vectors * L, -1);
    for (size_t i = 0; i < x.pixels.size(); ++i) entry[x.pixels[i] - base] = static_cast<int>(i);
    for (int v = 0; v < vectors; ++v) backward_group(x, v, entry.data() + v * L);
  }

 private:
  int offset(const AxisTable<A>& x, int e) const { return x.pixels[x.column[e]] - base; }

  // Bins from b on that read from two neighbouring vectors; one bin where even that reads more.
  int forward_group(const AxisTable<A>& x, int b) {
    int low = vectors * L, high = -1, count = 0, steps = 0;
    for (; b + count < x.bins && count < L; ++count) {
      int l = low, h = high;
      for (int e = x.begin[b + count]; e < x.begin[b + count + 1]; ++e) {
        l = std::min(l, offset(x, e));
        h = std::max(h, offset(x, e));
      }
      if (h >= 0 && h / L - l / L > 1) break;
      low = l, high = h;
      steps = std::max(steps, x.begin[b + count + 1] - x.begin[b + count]);
    }
    const int begin = static_cast<int>(index.size()) / L;
    if (count == 0) {
      groups.push_back({b, 1, -1, begin, begin});
      return 1;
    }
    const int from = high < 0 ? 0 : low / L, rows = pair ? 2 : 1;
    groups.push_back({b, count * rows, from, begin, begin + steps});
    for (int t = 0; t < steps; ++t) {
      for (int lane = 0; lane < L; ++lane) {
        const int row = lane / count, e0 = row < rows ? x.begin[b + lane % count] : 0;
        const int entries = row < rows ? x.begin[b + lane % count + 1] - e0 : 0;
        const int e = t < entries ? e0 + t : e0;
        index.push_back(entries ? offset(x, e) - from * L + row * L : 0);
        weight.push_back(t < entries ? x.weight[e] : A(0));
      }
    }
    return count;
  }

  void backward_group(const AxisTable<A>& x, int v, const int* entry) {
    int low = x.bins, high = -1, steps = 0;
    for (int lane = 0; lane < L; ++lane) {
      if (entry[lane] < 0) continue;
      for (int e = x.pixel_begin[entry[lane]]; e < x.pixel_begin[entry[lane] + 1]; ++e) {
        low = std::min(low, x.bin[e]);
        high = std::max(high, x.bin[e]);
      }
      steps = std::max(steps, x.pixel_begin[entry[lane] + 1] - x.pixel_begin[entry[lane]]);
    }
    const int begin = static_cast<int>(index.size()) / L;
    if (high < 0) return;
    const bool near = high / L - low / L <= 1;
    const int from = low / L;
    groups.push_back({v, L, near ? from : -1, begin, begin + steps});
    for (int t = 0; t < steps; ++t) {
      for (int lane = 0; lane < L; ++lane) {
        const int e0 = entry[lane] < 0 ? 0 : x.pixel_begin[entry[lane]];
        const int entries = entry[lane] < 0 ? 0 : x.pixel_begin[entry[lane] + 1] - e0;
        const int e = t < entries ? e0 + t : e0;
        // a far group keeps the number of the bin, a near one its lane in the two vectors; a lane
        // of no pixel is marked and gives 0 even where the gradient of its neighbour is infinite
        index.push_back(entries ? x.bin[e] - (near ? from * L : 0) : -1);
        weight.push_back(t < entries ? x.pixel_weight[e] : A(0));
      }
    }
  }
};

}  // namespace segroi
