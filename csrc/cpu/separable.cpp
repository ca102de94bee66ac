#include "cpu/separable.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <cstdlib>
#include <numeric>
#include <string>

#include "cpu/separable_kernels.h"
#include "cpu/streaming.h"

namespace segroi {
namespace {

constexpr int64_t kSourcesAtOnce = 4096;  // bounds the memory of the tables

template <typename T, typename A>
const SeparableKernels<T, A>& kernels() {
  static const SeparableKernels<T, A> chosen = [] {
#if defined(__x86_64__)
    const char* wish = std::getenv("SEGROI_ISA");  // baseline, avx2 or avx512, for tests
    const std::string most = wish ? wish : "avx512";
    __builtin_cpu_init();
    const bool has512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool has2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("f16c");
    if (most == "avx512" && has512 && has2) return avx512::separable_kernels<T, A>();
    if (most != "baseline" && has2) return avx2::separable_kernels<T, A>();
#endif
    return baseline::separable_kernels<T, A>();
  }();
  return chosen;
}

// Tasks 0 .. count - 1 on all threads, each taking the next few: what they cost differs.
template <typename Task>
void for_each_task(int64_t count, int64_t step, const Task& task) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), (count + step - 1) / step);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t first; (first = next.fetch_add(step)) < count;) {
        for (int64_t i = first; i < std::min(first + step, count); ++i) task(i);
      }
    }
  });
}

template <typename A>
struct Tables {
  std::vector<SourceTable<A>> axes;
  std::vector<RowPlan<A>> plans;  // planar layout only
  int64_t scratch = 0;

  enum Use { forward, backward, boxes };

  void build(const Separable<A>& p, int64_t first, int64_t count, bool planar, Use use) {
    axes.resize(count);
    plans.resize(count);
    at::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) build_one(p, p.sources[first + i], i, planar, use);
    });
    scratch = 0;
    const int channels = static_cast<int>(p.maps[0].size(1));
    for (int64_t i = 0; i < count; ++i) {
      scratch = std::max(scratch, scratch_elements(axes[i], plans[i], planar ? kPlanes : channels));
    }
  }

 private:
  void build_one(const Separable<A>& p, const Source<A>& s, int64_t i, bool planar, Use use) {
    if (s.image < 0) {
      axes[i] = SourceTable<A>();
      return;
    }
    axes[i].y.build(s.y, use == backward, use == boxes);
    axes[i].x.build(s.x, use == backward, use == boxes);
    if (!planar || use == boxes || axes[i].empty()) return;
    const int width = static_cast<int>(p.maps[s.level].size(3));
    if (use == forward) plans[i].plan_forward(axes[i].x, width);
    if (use == backward) plans[i].plan_backward(axes[i].x, width);
  }
};

template <typename T>
ImageView<T> image_view(const at::Tensor& map, int64_t image, int64_t channel) {
  auto* data = static_cast<T*>(const_cast<void*>(map.const_data_ptr()));
  return {data + image * map.stride(0) + channel * map.stride(1), map.stride(1), map.stride(2),
          map.stride(3), static_cast<int>(map.size(3))};
}

// Outputs in the order in which their sources lie in memory.
template <typename A>
std::vector<int64_t> in_reading_order(const Separable<A>& p, int64_t first, int64_t count) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), first);
  const auto key = [&](int64_t i) {
    const Source<A>& s = p.sources[i * p.per];
    return std::tuple(s.image, s.level, s.y.origin);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return key(a) < key(b); });
  return order;
}

// Starts an output with what its samples outside the map are worth; false if that is nothing.
template <typename A>
bool start_with_fill(const Separable<A>& p, const SourceTable<A>& table, bool exists, int channels,
                     int64_t bin_stride, int64_t channel_stride, A* acc) {
  if (p.fill == 0 || !exists) return false;
  for (int y = 0; y < p.bins_h; ++y) {
    for (int x = 0; x < p.bins_w; ++x) {
      const A outside = 1 - table.y.cover[y] * table.x.cover[x];
      const A value = outside > 0 ? p.fill * outside : A(0);  // a NaN stays outside
      A* at = acc + (static_cast<int64_t>(y) * p.bins_w + x) * bin_stride;
      for (int c = 0; c < channels; ++c) at[c * channel_stride] = value;
    }
  }
  return true;
}

template <typename T, typename A>
void forward_nhwc(const Separable<A>& p, const Tables<A>& tables, int64_t first_output,
                  int64_t count, const at::Tensor& out) {
  const int64_t bins = static_cast<int64_t>(p.bins_h) * p.bins_w;
  const int channels = static_cast<int>(p.maps[0].size(1));
  const bool direct =
      std::is_same_v<T, A> && out.stride(2) == 1 && out.stride(3) == out.stride(4) * p.bins_w;
  const std::vector<int64_t> order = in_reading_order(p, first_output, count);
  const auto& kernel = kernels<T, A>();
  for_each_task(count, 4, [&](int64_t task) {
    thread_local std::vector<A> scratch, buffer;
    scratch.resize(tables.scratch);
    const int64_t i = order[task];
    T* target =
        out.mutable_data_ptr<T>() + i / p.slots * out.stride(0) + i % p.slots * out.stride(1);
    if (!direct) buffer.resize(bins * channels);
    A* acc = direct ? reinterpret_cast<A*>(target) : buffer.data();
    const int64_t stride = direct ? out.stride(4) : channels;
    const SourceTable<A>* axes = tables.axes.data() + (i - first_output) * p.per;
    const Source<A>* sources = p.sources.data() + i * p.per;
    bool add = start_with_fill(p, axes[0], sources[0].image >= 0, channels, stride, 1, acc);
    for (int s = 0; s < p.per; ++s) {
      if (axes[s].empty()) continue;
      const auto view = image_view<const T>(p.maps[sources[s].level], sources[s].image, 0);
      kernel.nhwc_forward(view, axes[s], channels, scratch.data(), acc, stride, add);
      add = true;
    }
    for (int64_t b = 0; b < bins; ++b) {
      if (!add) std::fill(acc + b * stride, acc + b * stride + channels, A(0));
      if (direct) continue;
      T* at = target + b / p.bins_w * out.stride(3) + b % p.bins_w * out.stride(4);
      for (int c = 0; c < channels; ++c)
        at[c * out.stride(2)] = static_cast<T>(acc[b * stride + c]);
    }
  });
}

template <typename T, typename A>
void forward_nchw(const Separable<A>& p, const Tables<A>& tables, int64_t first_output,
                  int64_t count, const at::Tensor& out) {
  const int64_t bins = static_cast<int64_t>(p.bins_h) * p.bins_w, stride = bins + Lanes<A>::count;
  const int64_t channels = p.maps[0].size(1), blocks = (channels + kPlanes - 1) / kPlanes;
  const std::vector<int64_t> order = in_reading_order(p, first_output, count);
  const bool dense = out.stride(4) == 1 && out.stride(3) == p.bins_w;
  const auto& kernel = kernels<T, A>();
  for_each_task(blocks, 1, [&](int64_t block) {  // a few planes stay in the cache for all RoIs
    thread_local std::vector<A> scratch, buffer;
    scratch.resize(tables.scratch);
    buffer.resize(kPlanes * stride);
    const int64_t first = block * kPlanes;
    const int now = static_cast<int>(std::min<int64_t>(kPlanes, channels - first));
    for (int64_t i : order) {
      const SourceTable<A>* axes = tables.axes.data() + (i - first_output) * p.per;
      const Source<A>* sources = p.sources.data() + i * p.per;
      bool add = start_with_fill(p, axes[0], sources[0].image >= 0, now, 1, stride, buffer.data());
      for (int s = 0; s < p.per; ++s) {
        if (axes[s].empty()) continue;
        const auto view = image_view<const T>(p.maps[sources[s].level], sources[s].image, first);
        const RowPlan<A>& plan = tables.plans[(i - first_output) * p.per + s];
        kernel.nchw_forward(view, axes[s], plan, now, scratch.data(), buffer.data(), stride, add);
        add = true;
      }
      if (!add) std::fill(buffer.begin(), buffer.end(), A(0));
      T* target = out.mutable_data_ptr<T>() + i / p.slots * out.stride(0) +
                  i % p.slots * out.stride(1) + first * out.stride(2);
      for (int c = 0; c < now; ++c) {
        const A* from = buffer.data() + c * stride;
        T* at = target + c * out.stride(2);
        for (int64_t b = 0; b < bins; ++b) {
          at[dense ? b : b / p.bins_w * out.stride(3) + b % p.bins_w * out.stride(4)] =
              static_cast<T>(from[b]);
        }
      }
    }
  });
}

// Sources of every image of every map, in their order: [map * images + image].
template <typename A>
std::vector<std::vector<int64_t>> by_image(const Separable<A>& p, int64_t first, int64_t count) {
  const int64_t images = p.maps[0].size(0);
  std::vector<std::vector<int64_t>> lists(p.maps.size() * images);
  for (int64_t i = first; i < first + count; ++i) {
    const Source<A>& s = p.sources[i];
    if (s.image >= 0) lists[s.level * images + s.image].push_back(i);
  }
  return lists;
}

// Zero the gradients of some channels of one image.
template <typename A>
void clear(const at::Tensor& map, int64_t image, int64_t first, int64_t channels, bool nhwc) {
  A* data = map.mutable_data_ptr<A>() + image * map.stride(0) + first * map.stride(1);
  const int64_t pixels = map.size(2) * map.size(3), all = map.size(1);
  if (!nhwc || channels == all) {
    std::memset(data, 0, channels * pixels * sizeof(A));
    return;
  }
  for (int64_t i = 0; i < pixels; ++i) std::memset(data + i * all, 0, channels * sizeof(A));
}

template <typename A>
void backward_maps(const Separable<A>& p, const at::Tensor& grad,
                   const std::vector<at::Tensor>& maps, bool nhwc) {
  const int64_t images = maps[0].size(0), channels = maps[0].size(1);
  const int64_t bins = static_cast<int64_t>(p.bins_h) * p.bins_w;
  const int64_t block = nhwc ? (at::get_num_threads() > 4 ? 16 : 64) : kPlanes;
  const int64_t blocks = (channels + block - 1) / block, lists_count = maps.size() * images;
  const auto& kernel = kernels<A, A>();
  const int64_t total = p.sources.size();
  Tables<A> tables;
  for (int64_t first = 0; first == 0 || first < total; first += kSourcesAtOnce) {
    const int64_t count = std::min(kSourcesAtOnce, total - first);
    tables.build(p, first, count, !nhwc, Tables<A>::backward);
    const auto lists = by_image(p, first, count);
    for_each_task(blocks * lists_count, 1, [&](int64_t task) {
      const int64_t from = task / lists_count * block, list = task % lists_count;
      const at::Tensor& map = maps[list / images];
      const int64_t now = std::min(block, channels - from);
      if (first == 0) clear<A>(map, list % images, from, now, nhwc);
      thread_local std::vector<A> scratch, buffer;
      scratch.resize(tables.scratch);
      const auto view = image_view<A>(map, list % images, from);
      const int64_t stride = bins + 2 * Lanes<A>::count;
      buffer.resize(kPlanes * stride);
      for (int64_t i : lists[list]) {
        const SourceTable<A>& axes = tables.axes[i - first];
        if (axes.empty()) continue;
        const int64_t output = i / p.per;
        const A* g = grad.const_data_ptr<A>() + output / p.slots * grad.stride(0) +
                     output % p.slots * grad.stride(1) + from * grad.stride(2);
        if (nhwc) {
          kernel.nhwc_backward(view, axes, now, scratch.data(), g, grad.stride(4));
          continue;
        }
        for (int64_t c = 0; c < now; ++c) {
          std::memcpy(buffer.data() + c * stride, g + c * grad.stride(2), bins * sizeof(A));
        }
        kernel.nchw_backward(view, axes, tables.plans[i - first], static_cast<int>(now),
                             scratch.data(), buffer.data(), stride);
      }
    });
  }
}

// Adds the gradients of one source to those of its box's four ends.
template <typename T, typename A>
void backward_box(const ImageView<const T>& image, const SourceTable<A>& axes, int64_t channels,
                  const at::Tensor& grad, const A* g, std::vector<A>* columns, double* ends) {
  const AxisTable<A>&y = axes.y, &x = axes.x;
  const size_t n = x.pixels.size();
  columns->resize(3 * n);
  A *value = columns->data(), *to_start = value + n, *to_end = value + 2 * n;
  for (int64_t c = 0; c < channels; ++c) {
    for (int ph = 0; ph < y.bins; ++ph) {
      for (size_t j = 0; j < n; ++j) {
        const T* p = image.data + c * image.channel + x.pixels[j] * image.column;
        A sum = 0, start = 0, end = 0;
        for (int t = y.begin[ph]; t < y.begin[ph + 1]; ++t) {
          const A pixel = static_cast<A>(p[y.pixels[y.column[t]] * image.row]);
          sum += y.weight[t] * pixel;
          start += y.to_start[t] * pixel;
          end += y.to_end[t] * pixel;
        }
        value[j] = sum, to_start[j] = start, to_end[j] = end;
      }
      for (int pw = 0; pw < x.bins; ++pw) {
        const A up = g[c * grad.stride(2) + ph * grad.stride(3) + pw * grad.stride(4)];
        for (int t = x.begin[pw]; t < x.begin[pw + 1]; ++t) {
          const int j = x.column[t];
          ends[0] += up * x.weight[t] * to_start[j];
          ends[1] += up * x.weight[t] * to_end[j];
          ends[2] += up * x.to_start[t] * value[j];
          ends[3] += up * x.to_end[t] * value[j];
        }
      }
    }
  }
}

template <typename A>
at::ScalarType accumulation_type() {
  return std::is_same_v<A, double> ? at::kDouble : at::kFloat;
}

}  // namespace

bool is_channels_last(const at::Tensor& map) {
  return map.is_contiguous(at::MemoryFormat::ChannelsLast) && !map.is_contiguous();
}

std::vector<at::Tensor> readable(const std::vector<at::Tensor>& maps) {
  const at::Tensor& first = maps[0];
  const bool nhwc = first.stride(1) == 1 && first.stride(3) != 1;
  std::vector<at::Tensor> result;
  for (const at::Tensor& map : maps) {
    const int64_t dense = nhwc ? map.stride(1) : map.stride(3);
    const auto format = nhwc ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    result.push_back(dense == 1 ? map : map.contiguous(format));
  }
  return result;
}

at::Tensor empty_output(const at::Tensor& like, int64_t rois, int64_t slots, int64_t h, int64_t w,
                        bool stack) {
  const int64_t c = like.size(1);
  at::Tensor out;
  if (!is_channels_last(like)) {
    out = stack ? at::empty({rois, slots, c, h, w}, like.options())
                : at::empty({rois, slots * c, h, w}, like.options());
  } else {
    out = stack ? at::empty({rois, slots, h, w, c}, like.options()).permute({0, 1, 4, 2, 3})
                : at::empty({rois, h, w, slots * c}, like.options()).permute({0, 3, 1, 2});
  }
  hint_huge_pages(out);
  return out;
}

template <typename A>
void separable_forward(const Separable<A>& problem, const at::Tensor& out) {
  if (out.numel() == 0) return;
  Separable<A> p = problem;
  p.maps = readable(p.maps);
  const bool nhwc = p.maps[0].stride(1) == 1 && p.maps[0].stride(3) != 1;
  const int64_t outputs = p.rois * p.slots, step = std::max<int64_t>(1, kSourcesAtOnce / p.per);
  Tables<A> tables;
  for (int64_t first = 0; first < outputs; first += step) {
    const int64_t count = std::min(step, outputs - first);
    tables.build(p, first * p.per, count * p.per, !nhwc, Tables<A>::forward);
    const auto run = [&]<typename T>() {
      (nhwc ? forward_nhwc<T, A> : forward_nchw<T, A>)(p, tables, first, count, out);
    };
    if constexpr (std::is_same_v<A, double>) {
      run.template operator()<double>();
    } else {
      const at::ScalarType type = p.maps[0].scalar_type();
      if (type == at::kFloat) run.template operator()<float>();
      if (type == at::kHalf) run.template operator()<at::Half>();
      if (type == at::kBFloat16) run.template operator()<at::BFloat16>();
    }
  }
}

template <typename A>
std::vector<at::Tensor> separable_backward_maps(const Separable<A>& p, const at::Tensor& grad) {
  const at::Tensor& like = p.maps[0];
  const bool nhwc = is_channels_last(like);
  const auto format = nhwc ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::ScalarType type = accumulation_type<A>();
  std::vector<at::Tensor> grads;
  for (const at::Tensor& map : p.maps) {
    grads.push_back(at::empty(map.sizes(), map.options().dtype(type).memory_format(format)));
    hint_huge_pages(grads.back());
  }
  if (like.size(0) > 0 && like.size(1) > 0) {
    const at::Tensor wide = grad.to(type);
    const at::Tensor dense =
        nhwc ? wide.permute({0, 1, 3, 4, 2}).contiguous().permute({0, 1, 4, 2, 3})
             : wide.contiguous();
    backward_maps<A>(p, dense, grads, nhwc);
  }
  for (at::Tensor& g : grads) g = g.to(like.scalar_type());
  return grads;
}

template <typename A>
at::Tensor separable_backward_boxes(const Separable<A>& p, const at::Tensor& grad) {
  const at::Tensor wide = grad.to(accumulation_type<A>());
  at::Tensor ends = at::zeros({p.rois, 4}, wide.options());
  const int64_t per_roi = static_cast<int64_t>(p.slots) * p.per, channels = p.maps[0].size(1);
  Tables<A> tables;
  const int64_t step = std::max<int64_t>(1, kSourcesAtOnce / per_roi);
  for (int64_t first = 0; first < p.rois; first += step) {
    const int64_t count = std::min(step, p.rois - first);
    tables.build(p, first * per_roi, count * per_roi, false, Tables<A>::boxes);
    for_each_task(count, 4, [&](int64_t task) {
      thread_local std::vector<A> columns;
      double sums[4] = {0, 0, 0, 0};
      for (int64_t s = 0; s < per_roi; ++s) {
        const SourceTable<A>& axes = tables.axes[task * per_roi + s];
        if (axes.empty()) continue;
        const Source<A>& source = p.sources[(first + task) * per_roi + s];
        const A* g =
            wide.const_data_ptr<A>() + (first + task) * wide.stride(0) + s / p.per * wide.stride(1);
        AT_DISPATCH_FLOATING_TYPES_AND2(
            at::kHalf, at::kBFloat16, p.maps[0].scalar_type(), "separable_backward_boxes", [&] {
              const auto view = image_view<const scalar_t>(p.maps[source.level], source.image, 0);
              backward_box<scalar_t, A>(view, axes, channels, wide, g, &columns, sums);
            });
      }
      for (int e = 0; e < 4; ++e) {
        ends.mutable_data_ptr<A>()[(first + task) * 4 + e] = static_cast<A>(sums[e]);
      }
    });
  }
  return ends;
}

#define SEGROI_INSTANTIATE(A)                                                      \
  template void separable_forward<A>(const Separable<A>&, const at::Tensor&);      \
  template std::vector<at::Tensor> separable_backward_maps<A>(const Separable<A>&, \
                                                              const at::Tensor&);  \
  template at::Tensor separable_backward_boxes<A>(const Separable<A>&, const at::Tensor&);

SEGROI_INSTANTIATE(float)
SEGROI_INSTANTIATE(double)

}  // namespace segroi
