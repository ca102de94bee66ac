// The SIMD kernels of the separable engine. Included once per instruction set, inside a namespace
// of its name and a target pragma; hence no include guard. GNU vectors of 64 bytes become one, two
// or four registers.

template <typename A>
struct Simd;
template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(64)));
  typedef int32_t I __attribute__((vector_size(64)));
};
template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(64)));
  typedef int64_t I __attribute__((vector_size(64)));
};
template <typename A>
using Vec = typename Simd<A>::V;

#define SEGROI_INLINE inline __attribute__((always_inline))

template <typename A, typename V>
SEGROI_INLINE void put(A* p, const V& v) {
  __builtin_memcpy(p, &v, sizeof v);
}

template <typename A, typename V>
SEGROI_INLINE void put_part(A* p, const V& v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

SEGROI_INLINE void get(const float* p, Vec<float>* v) {
  __builtin_memcpy(v, p, sizeof *v);
}
SEGROI_INLINE void get(const double* p, Vec<double>* v) {
  __builtin_memcpy(v, p, sizeof *v);
}

SEGROI_INLINE void get(const at::BFloat16* p, Vec<float>* v) {
  typedef uint16_t Half __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  Half half;
  __builtin_memcpy(&half, p, sizeof half);
  const Word word = __builtin_convertvector(half, Word) << 16;
  __builtin_memcpy(v, &word, sizeof word);
}

SEGROI_INLINE void get(const at::Half* p, Vec<float>* v) {
  typedef _Float16 Half __attribute__((vector_size(32)));
  Half half;
  __builtin_memcpy(&half, p, sizeof half);
  *v = __builtin_convertvector(half, Vec<float>);
}

template <typename T, typename V>
SEGROI_INLINE void get_part(const T* p, int n, V* v) {
  T lanes[sizeof(V) / sizeof((*v)[0])] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  get(lanes, v);
}

// Lanes of the concatenation of two vectors.
template <typename A>
SEGROI_INLINE Vec<A> pick(const A* two_vectors, const typename Lanes<A>::Index* index) {
  typename Simd<A>::I at;
  __builtin_memcpy(&at, index, sizeof at);
#ifdef __AVX512F__
  Vec<A> low, high;
  get(two_vectors, &low);
  get(two_vectors + Lanes<A>::count, &high);
  return __builtin_shuffle(low, high, at);
#else
  Vec<A> out;
  for (int i = 0; i < Lanes<A>::count; ++i) out[i] = two_vectors[at[i] & (2 * Lanes<A>::count - 1)];
  return out;
#endif
}

// ---- channels_last: vectors of neighbouring channels ------------------------------------------

template <typename T, typename A, int U>
void nhwc_forward_group(const ImageView<const T>& image, const SourceTable<A>& table, int n,
                        A* scratch, A* acc, int64_t stride, bool add) {
  constexpr int L = Lanes<A>::count;
  const bool part = n < U * L;  // then U is 1
  const int columns = static_cast<int>(table.x.pixels.size());
  for (int ph = 0; ph < table.y.bins; ++ph) {
    const int t0 = table.y.begin[ph], t1 = table.y.begin[ph + 1];
    for (int j = 0; j < columns; ++j) {
      const T* column = image.data + table.x.pixels[j] * image.column;
      Vec<A> sum[U] = {};
      for (int t = t0; t < t1; ++t) {
        const T* p = column + table.y.pixels[table.y.column[t]] * image.row;
        const A w = table.y.weight[t];
        for (int u = 0; u < U; ++u) {
          Vec<A> v;
          if (part) {
            get_part(p, n, &v);
          } else {
            get(p + u * L, &v);
          }
          sum[u] += w * v;
        }
      }
      for (int u = 0; u < U; ++u) put(scratch + (j * U + u) * L, sum[u]);
    }
    for (int pw = 0; pw < table.x.bins; ++pw) {
      A* out = acc + (static_cast<int64_t>(ph) * table.x.bins + pw) * stride;
      Vec<A> sum[U] = {};
      if (t0 < t1) {
        for (int t = table.x.begin[pw]; t < table.x.begin[pw + 1]; ++t) {
          const A w = table.x.weight[t];
          const A* p = scratch + static_cast<int64_t>(table.x.column[t]) * U * L;
          for (int u = 0; u < U; ++u) {
            Vec<A> v;
            get(p + u * L, &v);
            sum[u] += w * v;
          }
        }
      }
      for (int u = 0; u < U; ++u) {
        Vec<A> before = {};
        if (part) {
          if (add) get_part(out, n, &before);
          put_part(out, before + sum[u], n);
        } else {
          if (add) get(out + u * L, &before);
          put(out + u * L, before + sum[u]);
        }
      }
    }
  }
}

template <typename T, typename A>
void nhwc_forward(const ImageView<const T>& image, const SourceTable<A>& table, int channels,
                  A* scratch, A* acc, int64_t stride, bool add) {
  constexpr int L = Lanes<A>::count;
  for (int c = 0; c < channels;) {
    ImageView<const T> at = image;
    at.data += c;
    const int left = channels - c;
    if (left >= 16 * L) {
      nhwc_forward_group<T, A, 16>(at, table, 16 * L, scratch, acc + c, stride, add);
      c += 16 * L;
    } else if (left >= 4 * L) {
      nhwc_forward_group<T, A, 4>(at, table, 4 * L, scratch, acc + c, stride, add);
      c += 4 * L;
    } else {
      const int n = left < L ? left : L;
      nhwc_forward_group<T, A, 1>(at, table, n, scratch, acc + c, stride, add);
      c += n;
    }
  }
}

template <typename A, int U>
void nhwc_backward_group(const ImageView<A>& image, const SourceTable<A>& table, int n, A* scratch,
                         const A* grad, int64_t stride) {
  constexpr int L = Lanes<A>::count;
  const bool part = n < U * L;
  const int columns = static_cast<int>(table.x.pixels.size());
  for (int ph = 0; ph < table.y.bins; ++ph) {  // bins of a row -> columns
    if (table.y.begin[ph] == table.y.begin[ph + 1]) continue;
    for (int j = 0; j < columns; ++j) {
      Vec<A> sum[U] = {};
      for (int t = table.x.pixel_begin[j]; t < table.x.pixel_begin[j + 1]; ++t) {
        const A w = table.x.pixel_weight[t];
        const A* p = grad + (static_cast<int64_t>(ph) * table.x.bins + table.x.bin[t]) * stride;
        for (int u = 0; u < U; ++u) {
          Vec<A> v;
          if (part) {
            get_part(p, n, &v);
          } else {
            get(p + u * L, &v);
          }
          sum[u] += w * v;
        }
      }
      for (int u = 0; u < U; ++u) put(scratch + ((ph * columns + j) * U + u) * L, sum[u]);
    }
  }
  for (size_t r = 0; r < table.y.pixels.size(); ++r) {  // columns of bins -> pixels, each once
    A* row = image.data + table.y.pixels[r] * image.row;
    for (int j = 0; j < columns; ++j) {
      A* out = row + table.x.pixels[j] * image.column;
      Vec<A> sum[U];
      for (int u = 0; u < U; ++u) {
        if (part) {
          get_part(out, n, &sum[u]);
        } else {
          get(out + u * L, &sum[u]);
        }
      }
      for (int t = table.y.pixel_begin[r]; t < table.y.pixel_begin[r + 1]; ++t) {
        const A w = table.y.pixel_weight[t];
        const A* p = scratch + (static_cast<int64_t>(table.y.bin[t]) * columns + j) * U * L;
        for (int u = 0; u < U; ++u) {
          Vec<A> v;
          get(p + u * L, &v);
          sum[u] += w * v;
        }
      }
      for (int u = 0; u < U; ++u) {
        if (part) {
          put_part(out, sum[u], n);
        } else {
          put(out + u * L, sum[u]);
        }
      }
    }
  }
}

template <typename A>
void nhwc_backward(const ImageView<A>& image, const SourceTable<A>& table, int channels, A* scratch,
                   const A* grad, int64_t stride) {
  constexpr int L = Lanes<A>::count;
  for (int c = 0; c < channels;) {
    ImageView<A> at = image;
    at.data += c;
    const int left = channels - c;
    if (left >= 4 * L) {
      nhwc_backward_group<A, 4>(at, table, 4 * L, scratch, grad + c, stride);
      c += 4 * L;
    } else {
      const int n = left < L ? left : L;
      nhwc_backward_group<A, 1>(at, table, n, scratch, grad + c, stride);
      c += n;
    }
  }
}

// ---- planar: vectors of neighbouring pixels of a row -------------------------------------------

// One row of bins before its horizontal pass: rows[c][v] = sum_t wy[t] * map[c][y_t][v].
template <typename T, typename A, int C>
SEGROI_INLINE void vertical_pass(const ImageView<const T>& image, const AxisTable<A>& y, int ph,
                                 const RowPlan<A>& plan, A* rows, int row_stride) {
  constexpr int L = Lanes<A>::count;
  for (int v = 0; v < plan.vectors; ++v) {
    const T* at = image.data + plan.base + v * L;
    const int n = plan.narrow ? std::max(0, std::min(L, image.width - plan.base - v * L)) : L;
    Vec<A> sum[C] = {};
    for (int t = y.begin[ph]; t < y.begin[ph + 1]; ++t) {
      const T* p = at + y.pixels[y.column[t]] * image.row;
      const A w = y.weight[t];
      for (int c = 0; c < C; ++c) {
        Vec<A> pixels;
        if (n < L) {
          get_part(p + c * image.channel, n, &pixels);
        } else {
          get(p + c * image.channel, &pixels);
        }
        sum[c] += w * pixels;
      }
    }
    for (int c = 0; c < C; ++c) put(rows + c * row_stride + v * L, sum[c]);
  }
}

template <typename A, int C>
SEGROI_INLINE void horizontal_pass(const AxisTable<A>& x, const RowPlan<A>& plan, const A* rows,
                                   int row_stride, int lanes, const LaneGroup& group, A* acc,
                                   int64_t stride, bool add) {
  constexpr int L = Lanes<A>::count;
  if (group.from < 0) {  // one bin that reads more than two vectors
    A sum[C] = {};
    for (int t = x.begin[group.first]; t < x.begin[group.first + 1]; ++t) {
      const int at = x.pixels[x.column[t]] - plan.base;
      for (int c = 0; c < C; ++c) sum[c] += x.weight[t] * rows[c * row_stride + at];
    }
    for (int c = 0; c < C; ++c) acc[c * stride] = (add ? acc[c * stride] : A(0)) + sum[c];
    return;
  }
  Vec<A> sum[C] = {};
  for (int t = group.begin; t < group.end; ++t) {
    Vec<A> w;
    get(plan.weight.data() + static_cast<int64_t>(t) * L, &w);
    const auto* index = plan.index.data() + static_cast<int64_t>(t) * L;
    for (int c = 0; c < C; ++c)
      sum[c] += w * pick<A>(rows + c * row_stride + group.from * L, index);
  }
  typename Simd<A>::I lane;
  for (int i = 0; i < L; ++i) lane[i] = i;
  for (int c = 0; c < C; ++c) {
    Vec<A> before = {};
    if (add) get(acc + c * stride, &before);
    const Vec<A> zero = {};
    put(acc + c * stride, before + (lane < lanes ? sum[c] : zero));
  }
}

template <typename T, typename A, int C>
void nchw_forward_planes(const ImageView<const T>& image, const SourceTable<A>& table,
                         const RowPlan<A>& plan, A* scratch, A* acc, int64_t stride, bool add) {
  constexpr int L = Lanes<A>::count;
  const int bins = table.x.bins, rows = plan.pair ? 2 : 1;
  const int row_stride = (plan.vectors * rows + 1) * L;  // a vector behind the last one may be read
  for (int ph = 0; ph < table.y.bins; ph += rows) {
    const int now = std::min(rows, table.y.bins - ph);
    for (int r = 0; r < now; ++r) {
      vertical_pass<T, A, C>(image, table.y, ph + r, plan, scratch + r * L, row_stride);
    }
    for (const LaneGroup& group : plan.groups) {
      const int lanes = plan.pair ? group.lanes / rows * now : group.lanes;
      horizontal_pass<A, C>(table.x, plan, scratch, row_stride, lanes, group,
                            acc + static_cast<int64_t>(ph) * bins + group.first, stride, add);
    }
  }
}

template <typename T, typename A>
void nchw_forward(const ImageView<const T>& image, const SourceTable<A>& table,
                  const RowPlan<A>& plan, int channels, A* scratch, A* acc, int64_t stride,
                  bool add) {
  if (channels == kPlanes) {
    nchw_forward_planes<T, A, kPlanes>(image, table, plan, scratch, acc, stride, add);
    return;
  }
  for (int c = 0; c < channels; ++c) {
    ImageView<const T> plane = image;
    plane.data += c * image.channel;
    nchw_forward_planes<T, A, 1>(plane, table, plan, scratch, acc + c * stride, stride, add);
  }
}

// Bins of one row -> columns of the window: out[c][v].
template <typename A, int C>
SEGROI_INLINE void spread_row(const RowPlan<A>& plan, const A* grad, int64_t stride, A* out,
                              int out_stride) {
  constexpr int L = Lanes<A>::count;
  for (const LaneGroup& group : plan.groups) {
    Vec<A> sum[C] = {};
    typename Simd<A>::I first;
    __builtin_memcpy(&first, plan.index.data() + static_cast<int64_t>(group.begin) * L,
                     sizeof first);
    for (int t = group.begin; t < group.end; ++t) {
      Vec<A> w;
      get(plan.weight.data() + static_cast<int64_t>(t) * L, &w);
      const auto* index = plan.index.data() + static_cast<int64_t>(t) * L;
      for (int c = 0; c < C; ++c) {
        if (group.from >= 0) {
          sum[c] += w * pick<A>(grad + c * stride + group.from * L, index);
        } else {
          for (int i = 0; i < L; ++i) {
            if (index[i] >= 0) sum[c][i] += w[i] * grad[c * stride + index[i]];
          }
        }
      }
    }
    const Vec<A> zero = {};
    for (int c = 0; c < C; ++c) {
      put(out + c * out_stride + group.first * L, first >= 0 ? sum[c] : zero);
    }
  }
}

template <typename A, int C>
void nchw_backward_planes(const ImageView<A>& image, const SourceTable<A>& table,
                          const RowPlan<A>& plan, A* scratch, const A* grad, int64_t stride) {
  constexpr int L = Lanes<A>::count;
  const int row_stride = plan.vectors * L, bin_stride = C * row_stride;
  for (int ph = 0; ph < table.y.bins; ++ph) {
    if (table.y.begin[ph] == table.y.begin[ph + 1]) continue;
    A* out = scratch + static_cast<int64_t>(ph) * bin_stride;
    if (static_cast<int>(plan.groups.size()) < plan.vectors) std::fill(out, out + bin_stride, A(0));
    spread_row<A, C>(plan, grad + static_cast<int64_t>(ph) * table.x.bins, stride, out, row_stride);
  }
  for (size_t r = 0; r < table.y.pixels.size(); ++r) {
    A* row = image.data + table.y.pixels[r] * image.row + plan.base;
    for (int v = 0; v < plan.vectors; ++v) {
      const int n = plan.narrow ? std::max(0, std::min(L, image.width - plan.base - v * L)) : L;
      Vec<A> sum[C];
      for (int c = 0; c < C; ++c) {
        A* at = row + c * image.channel + v * L;
        if (n < L) {
          get_part(at, n, &sum[c]);
        } else {
          get(at, &sum[c]);
        }
      }
      for (int t = table.y.pixel_begin[r]; t < table.y.pixel_begin[r + 1]; ++t) {
        const A w = table.y.pixel_weight[t];
        const A* p = scratch + static_cast<int64_t>(table.y.bin[t]) * bin_stride + v * L;
        for (int c = 0; c < C; ++c) {
          Vec<A> spread;
          get(p + c * row_stride, &spread);
          sum[c] += w * spread;
        }
      }
      for (int c = 0; c < C; ++c) {
        A* at = row + c * image.channel + v * L;
        if (n < L) {
          put_part(at, sum[c], n);
        } else {
          put(at, sum[c]);
        }
      }
    }
  }
}

template <typename A>
void nchw_backward(const ImageView<A>& image, const SourceTable<A>& table, const RowPlan<A>& plan,
                   int channels, A* scratch, const A* grad, int64_t stride) {
  if (channels == kPlanes) {
    nchw_backward_planes<A, kPlanes>(image, table, plan, scratch, grad, stride);
    return;
  }
  for (int c = 0; c < channels; ++c) {
    ImageView<A> plane = image;
    plane.data += c * image.channel;
    nchw_backward_planes<A, 1>(plane, table, plan, scratch, grad + c * stride, stride);
  }
}

template <typename T, typename A>
SeparableKernels<T, A> separable_kernels() {
  return {&nhwc_forward<T, A>, &nchw_forward<T, A>, &nhwc_backward<A>, &nchw_backward<A>};
}

template SeparableKernels<float, float> separable_kernels();
template SeparableKernels<double, double> separable_kernels();
template SeparableKernels<at::Half, float> separable_kernels();
template SeparableKernels<at::BFloat16, float> separable_kernels();
