#include "cpu/separable_tables.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <string>
#include <tuple>

namespace segroi::cpu {
namespace {

constexpr double kWaveBytes = 32 << 20;  // tables that exist at a time, about
constexpr int kBand = 64;                // rows of a map
constexpr int64_t kGroup = 16;           // crops whose tables one thread builds

Element element_of(at::ScalarType type) {
  if (type == at::kDouble) return Element::f64;
  if (type == at::kHalf) return Element::f16;
  return type == at::kBFloat16 ? Element::bf16 : Element::f32;
}

char* bytes_of(const at::Tensor& t) {
  return static_cast<char*>(const_cast<void*>(t.const_data_ptr()));
}

Map map_of(const at::Tensor& t) {
  return {bytes_of(t),
          {t.stride(0), t.stride(1), t.stride(2), t.stride(3)},
          t.size(0),
          static_cast<int>(t.size(2)),
          static_cast<int>(t.size(3))};
}

// The middle of a RoI along one axis, in pixels; 0 where its ends overflow.
template <typename T>
T centre(const AxisSampler<T>& axis) {
  const double steps = axis.binwise ? axis.bins : double(axis.bins) * axis.samples;
  const T middle = axis.origin + axis.step * static_cast<T>(steps / 2);
  return std::isfinite(middle) ? middle : T(0);
}

// Planar: from top to bottom. Interleaved: along bands of rows, to and fro, because a window of all
// channels is so large that only the next few RoIs still find it in the cache.
template <typename T>
std::vector<int64_t> reading_order(const Problem<T>& problem) {
  using Key = std::tuple<int64_t, int, T, T, int64_t>;  // no two are equal
  std::vector<Key> keys;
  for (int64_t i = 0; i < problem.count; ++i) {
    const Source<T>& source = problem.sources[i * problem.per];
    T y = source.y.origin, x = 0;
    if (!problem.planar) {
      y = std::floor(centre(source.y) / kBand);
      x = std::fmod(y, T(2)) == 0 ? centre(source.x) : -centre(source.x);
    }
    keys.emplace_back(source.image, source.level, y, x, i);
  }
  std::sort(keys.begin(), keys.end());
  std::vector<int64_t> order;
  for (const Key& key : keys) order.push_back(std::get<4>(key));
  return order;
}

// Bytes that the tables of an axis may take.
template <typename T>
double table_bytes(const AxisSampler<T>& axis) {
  const double steps = axis.binwise ? axis.bins : double(axis.bins) * axis.samples;
  const double pixels = std::min<double>(std::fabs(axis.step) * steps, axis.length) + 2;
  const double taps = std::min<double>(2.0 * axis.samples, pixels) * axis.bins;
  return 100 * (pixels + axis.bins) + 16 * std::min(taps, pixels + 2.0 * axis.bins);
}

template <typename T>
int64_t wave_end(const Problem<T>& problem, const std::vector<int64_t>& order, int64_t begin) {
  double bytes = 0;
  int64_t end = begin;
  for (; end < problem.count; ++end) {
    const int64_t first = order[end] * problem.per;
    for (int64_t i = first; i < first + problem.reads(order[end]); ++i) {
      bytes += table_bytes(problem.sources[i].y) + table_bytes(problem.sources[i].x);
    }
    if (bytes > kWaveBytes && end > begin) break;
  }
  return end;
}

template <typename T>
Pooled<T> build_tables(const Problem<T>& problem, const Source<T>& source, bool backward, int width,
                       TableBuilder<T>& builder, Arena& arena) {
  const Map& map = problem.maps[source.level];
  const TableForm y{problem.weights_y, backward, false, 0};
  const TableForm x{problem.weights_x, backward, problem.planar, problem.planar ? width : 0};
  return {builder.build(source.y, y, arena), builder.build(source.x, x, arena),
          map.data + source.image * map.stride.n * problem.element_bytes, map.stride};
}

#ifdef __x86_64__
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace

template <typename T>
Problem<T>::Problem(const Separable<T>& from, const std::vector<at::Tensor>& tensors,
                    const at::Tensor& out)
    : sources(from.sources),
      element(element_of(out.scalar_type())),
      element_bytes(static_cast<int>(out.element_size())),
      channels(tensors[0].size(1)),
      slots(from.slots),
      count(from.rois * from.slots),
      per(from.per),
      bins_h(from.bins_h),
      bins_w(from.bins_w),
      crops(bytes_of(out)),
      crop_stride(out.stride(0)),
      slot_stride(out.stride(1)),
      stride{0, out.stride(2), out.stride(3), out.stride(4)},
      fill(from.fill),
      planar(channels == 1 || tensors[0].stride(1) != 1 || tensors[0].stride(3) == 1) {
  for (const at::Tensor& tensor : tensors) maps.push_back(map_of(tensor));
}

template <typename T>
void for_each_wave(const Problem<T>& problem, bool backward, int width,
                   const std::function<void(const Wave<T>&)>& run) {
  const std::vector<int64_t> order = reading_order(problem);
  for (int64_t begin = 0; begin < problem.count;) {
    const int64_t end = wave_end(problem, order, begin),
                  groups = (end - begin + kGroup - 1) / kGroup;
    Wave<T> wave{{order.begin() + begin, order.begin() + end}, {}, std::vector<Arena>(groups)};
    wave.tables.resize(wave.crops.size() * problem.per);
    for_each_task(groups, [&](int64_t group, Scratch&) {
      TableBuilder<T> builder;
      for (int64_t k = group * kGroup; k < std::min(end - begin, (group + 1) * kGroup); ++k) {
        for (int i = 0; i < problem.reads(wave.crops[k]); ++i) {
          const Source<T>& source = problem.sources[wave.crops[k] * problem.per + i];
          wave.tables[k * problem.per + i] =
              build_tables(problem, source, backward, width, builder, wave.arenas[group]);
        }
      }
    });
    run(wave);
    begin = end;
  }
}

template <>
Kernels<double> choose_kernels<double>(Element) {
  return kernels_double();
}

template <>
Kernels<float> choose_kernels<float>(Element element) {
#ifdef __x86_64__
  const char* asked = std::getenv("SEGROI_ISA");
  const std::string most = asked ? asked : "avx512";
  if (most == "avx512" && has_avx512() && has_avx2()) return kernels_avx512(element);
  if (most != "baseline" && has_avx2()) return kernels_avx2(element);
#endif
  return kernels_baseline(element);
}

Scratch::~Scratch() {
  for (void* memory : memory_) std::free(memory);
}

void Scratch::grow(Slot slot, int64_t bytes) {
  std::free(memory_[slot]);
  bytes_[slot] = (bytes + bytes / 2 + 4095) / 4096 * 4096;
  memory_[slot] = std::aligned_alloc(64, bytes_[slot]);
  if (memory_[slot] == nullptr) throw std::bad_alloc();
}

#define SEGROI_INSTANTIATE(T)                               \
  template struct Problem<T>;                               \
  template void for_each_wave(const Problem<T>&, bool, int, \
                              const std::function<void(const Wave<T>&)>&);

SEGROI_INSTANTIATE(float)
SEGROI_INSTANTIATE(double)

}  // namespace segroi::cpu
