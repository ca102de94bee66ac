// Building blocks of the kernels: sums of rows, products with lanes, conversion of runs of
// elements. Included like simd.h.
#pragma once

#include <type_traits>

#include "cpu/separable_kernels.h"
#include "cpu/simd.h"

// Loops over registers must vanish, or the registers become arrays in memory.
#define SEGROI_UNROLL _Pragma("GCC unroll 16")

namespace {

using segroi::cpu::Lanes;
using segroi::cpu::LaneSegment;
using segroi::cpu::Taps;

template <typename U>
inline U smaller(U a, U b) {
  return a < b ? a : b;
}

// The first n lanes, n > 0, of any type that V converts.
template <class V, typename S>
inline typename V::Reg load_some(const S* p, int64_t n) {
  if constexpr (std::is_same_v<S, typename V::T>) {
    return n >= V::kWidth ? V::load(p) : V::load(p, V::mask(n));
  } else {
    return V::load(p, n);
  }
}
template <class V, typename S>
inline void store_some(S* p, typename V::Reg v, int64_t n) {
  if constexpr (std::is_same_v<S, typename V::T>) {
    n >= V::kWidth ? V::store(p, v) : V::store(p, v, V::mask(n));
  } else {
    V::store(p, v, n);
  }
}

// n elements, `from` apart, to n others, `to` apart; rounds to nearest even.
template <class V, typename S, typename D>
inline void convert(const S* src, int64_t from, D* dst, int64_t to, int64_t n) {
  int64_t i = 0;
  if (from != 1 || to != 1) {
    for (; i < n; ++i) dst[i * to] = static_cast<D>(src[i * from]);
    return;
  }
  if constexpr (std::is_same_v<S, D>) {
    std::memcpy(dst, src, n * sizeof(D));
  } else if constexpr (V::kShorts) {
    constexpr int W = V::kWidth;
    for (; i + W <= n; i += W) store_some<V>(dst + i, load_some<V>(src + i, W), W);
    if (i < n) store_some<V>(dst + i, load_some<V>(src + i, n - i), n - i);
  } else {
    for (; i < n; ++i) dst[i] = static_cast<D>(src[i]);
  }
}

// A row of n elements after another, `y` apart: as one run where the rows touch.
struct Steps {
  int64_t y, x;
};
template <class V, typename S, typename D>
inline void convert_rows(const S* src, Steps from, D* dst, Steps to, int64_t rows, int64_t n) {
  if (from.y == n * from.x && to.y == n * to.x) {
    n *= rows;
    rows = 1;
  }
  for (; rows > 0; --rows, src += from.y, dst += to.y) convert<V>(src, from.x, dst, to.x, n);
}

// Row i lies at base + position(i) * step; without positions, at base + (i - first) * step.
template <typename T>
struct Rows {
  const T* base;
  int64_t step;
  const int* position;
  int first;
  const T* at(int i) const { return base + (position ? position[i] : i - first) * step; }
};

// The entries of one output.
template <typename T>
struct TapList {
  const int* input;
  const T* weight;
  int count;
};
template <typename T>
inline TapList<T> list(const Taps<T>& taps, int output) {
  const int begin = taps.begin[output];
  return {taps.input + begin, taps.weight + begin, taps.begin[output + 1] - begin};
}

template <class V, bool kAdd, int N, typename S, typename T = typename V::T>
inline void combine_tile(T* dst, const Rows<S>& rows, int64_t x, const TapList<T>& taps) {
  typename V::Reg sum[N];
  SEGROI_UNROLL
  for (int i = 0; i < N; ++i) sum[i] = kAdd ? V::load(dst + x + i * V::kWidth) : V::zero();
  for (int t = 0; t < taps.count; ++t) {
    const S* row = rows.at(taps.input[t]) + x;
    const auto weight = V::set(taps.weight[t]);
    SEGROI_UNROLL
    for (int i = 0; i < N; ++i) {
      sum[i] = V::fma(weight, load_some<V>(row + i * V::kWidth, V::kWidth), sum[i]);
    }
  }
  SEGROI_UNROLL
  for (int i = 0; i < N; ++i) V::store(dst + x + i * V::kWidth, sum[i]);
}

// dst[0, n) = or += sum of weight * row over the taps.
template <class V, bool kAdd, typename S, typename T = typename V::T>
inline void combine(T* dst, int64_t n, const Rows<S>& rows, const TapList<T>& taps) {
  int64_t x = 0;
  for (; x + V::kTile * V::kWidth <= n; x += V::kTile * V::kWidth) {
    combine_tile<V, kAdd, V::kTile>(dst, rows, x, taps);
  }
  for (; x + 4 * V::kWidth <= n; x += 4 * V::kWidth) combine_tile<V, kAdd, 4>(dst, rows, x, taps);
  for (; x + V::kWidth <= n; x += V::kWidth) combine_tile<V, kAdd, 1>(dst, rows, x, taps);
  if (x == n) return;
  const auto mask = V::mask(n - x);
  auto sum = kAdd ? V::load(dst + x, mask) : V::zero();
  for (int t = 0; t < taps.count; ++t) {
    const auto row = load_some<V>(rows.at(taps.input[t]) + x, n - x);
    sum = V::fma(V::set(taps.weight[t]), row, sum);
  }
  V::store(dst + x, sum, mask);
}

// combine for C planes at once, whose rows and results are `step` and `dst_step` apart.
template <class V, bool kAdd, int C, int N, typename T = typename V::T>
inline void combine_planes_tile(T* dst, int64_t dst_step, int64_t n, const Rows<T>& rows,
                                int64_t step, const TapList<T>& taps) {
  for (int64_t x = 0; x < n; x += N * V::kWidth) {
    typename V::Mask mask[N];
    typename V::Reg sum[C][N];
    SEGROI_UNROLL
    for (int i = 0; i < N; ++i) mask[i] = V::mask(n - x - i * V::kWidth);
    T* to = dst + x;
    SEGROI_UNROLL
    for (int c = 0; c < C; ++c, to += dst_step) {
      SEGROI_UNROLL
      for (int i = 0; i < N; ++i) {
        sum[c][i] = kAdd ? V::load(to + i * V::kWidth, mask[i]) : V::zero();
      }
    }
    for (int t = 0; t < taps.count; ++t) {
      const T* row = rows.at(taps.input[t]) + x;
      const auto weight = V::set(taps.weight[t]);
      SEGROI_UNROLL
      for (int c = 0; c < C; ++c, row += step) {
        SEGROI_UNROLL
        for (int i = 0; i < N; ++i) {
          sum[c][i] = V::fma(weight, V::load(row + i * V::kWidth, mask[i]), sum[c][i]);
        }
      }
    }
    to = dst + x;
    SEGROI_UNROLL
    for (int c = 0; c < C; ++c, to += dst_step) {
      SEGROI_UNROLL
      for (int i = 0; i < N; ++i) V::store(to + i * V::kWidth, sum[c][i], mask[i]);
    }
  }
}

template <class V, bool kAdd, int C, typename T = typename V::T>
inline void combine_planes(T* dst, int64_t dst_step, int64_t n, const Rows<T>& rows, int64_t step,
                           const TapList<T>& taps) {
  if (n > V::kWidth) {
    combine_planes_tile<V, kAdd, C, 2>(dst, dst_step, n, rows, step, taps);
  } else {
    combine_planes_tile<V, kAdd, C, 1>(dst, dst_step, n, rows, step, taps);
  }
}

// R rows of n values each, times the matrix: out[r][i] = or += sum of weight * in[r][input].
// Without kTwo, n is below a vector's width: all bases are 0, and the lane that stays 0 is in the
// first vector.
template <class V, bool kAdd, bool kTwo, int R, typename T = typename V::T>
inline void spread_tile(const T* in, int64_t in_step, int64_t n, const Lanes<T>& lanes, T* out,
                        int64_t out_step, int64_t outputs) {
  constexpr int W = V::kWidth;
  const uint8_t* index = lanes.index;
  const T* weight = lanes.weight;
  typename V::Reg sum[R], a[R], b[R];
  if (!kTwo) {
    SEGROI_UNROLL
    for (int r = 0; r < R; ++r) a[r] = V::load(in + r * in_step, V::mask(n));
  }
  for (int s = 0; s < lanes.count; ++s) {
    const LaneSegment& segment = lanes.segments[s];
    const auto mask = V::mask(outputs - segment.block * W);
    T* to = out + segment.block * W;
    if (s == 0 || lanes.segments[s - 1].block != segment.block) {
      SEGROI_UNROLL
      for (int r = 0; r < R; ++r) sum[r] = kAdd ? V::load(to + r * out_step, mask) : V::zero();
    }
    if (kTwo) {
      const int64_t left = n - segment.base;
      const auto mask_a = V::mask(left);
      const auto mask_b = V::mask(smaller<int64_t>(left - W, W - 1));  // the last lane stays 0
      SEGROI_UNROLL
      for (int r = 0; r < R; ++r) {
        a[r] = V::load(in + r * in_step + segment.base, mask_a);
        b[r] = V::load(in + r * in_step + segment.base + W, mask_b);
      }
    }
    for (int i = 0; i < segment.steps; ++i, index += W, weight += W) {
      const auto lane = V::index(index);
      const auto factor = V::load(weight);
      SEGROI_UNROLL
      for (int r = 0; r < R; ++r) {
        const auto value = kTwo ? V::pick(a[r], b[r], lane) : V::pick(a[r], lane);
        sum[r] = V::fma(factor, value, sum[r]);
      }
    }
    if (s + 1 == lanes.count || lanes.segments[s + 1].block != segment.block) {
      SEGROI_UNROLL
      for (int r = 0; r < R; ++r) V::store(to + r * out_step, sum[r], mask);
    }
  }
}

template <class V, bool kAdd, bool kTwo, typename T = typename V::T>
inline void spread_rows(const T* in, int64_t in_step, int64_t n, int64_t rows,
                        const Lanes<T>& lanes, T* out, int64_t out_step, int64_t outputs) {
  constexpr int R = V::kRows;
  int64_t r = 0;
  const auto run = [&](auto tile, int64_t step) {
    for (; r + step <= rows; r += step) {
      tile(in + r * in_step, in_step, n, lanes, out + r * out_step, out_step, outputs);
    }
  };
  run(spread_tile<V, kAdd, kTwo, R>, R);
  run(spread_tile<V, kAdd, kTwo, R / 2>, R / 2);
  run(spread_tile<V, kAdd, kTwo, 1>, 1);
}

template <class V, bool kAdd, typename T = typename V::T>
inline void spread(const T* in, int64_t in_step, int64_t n, int64_t rows, const Lanes<T>& lanes,
                   T* out, int64_t out_step, int64_t outputs) {
  const auto run = n < V::kWidth ? spread_rows<V, kAdd, false, T> : spread_rows<V, kAdd, true, T>;
  run(in, in_step, n, rows, lanes, out, out_step, outputs);
}

}  // namespace
