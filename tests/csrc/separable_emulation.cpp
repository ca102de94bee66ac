// The kernels of csrc/cuda/separable_*.cuh behind C functions: launched by the same division of
// work, run on the CPU. Built and called by test_cuda_emulation.py.
#include "cuda_emulation.h"

#include "cuda/separable_backward.cuh"
#include "cuda/separable_boxes.cuh"
#include "cuda/separable_forward_strided.cuh"
#include "cuda/separable_launch.h"
#include "cuda/separable_plan.cuh"

namespace segroi::cuda {
namespace {

constexpr int kMultiprocessors = 2;

// bfloat16 with the rounding of the hardware: to nearest, ties to even.
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    bits = std::isnan(value) ? 0x7FC0 : uint16_t((word + 0x7FFF + ((word >> 16) & 1)) >> 16);
  }
  explicit operator float() const {
    const uint32_t word = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
};

template <typename scalar_t>
int forward(SeparableArgs a, int order) {
  constexpr int v = 16 / sizeof(scalar_t);
  const Layout layout = choose_layout(a, v, sizeof(scalar_t));
  const LaunchShape shape =
      divide_forward(&a, layout, v, sizeof(accumulate_t<scalar_t>), kMultiprocessors);
  emulation::launch(dim3(shape.blocks), dim3(shape.threads), shape.shared_bytes, order, [&] {
    if (layout == Layout::vector) return separable_forward_channels_last<scalar_t, v>(a);
    if (layout == Layout::channels_last) return separable_forward_channels_last<scalar_t, 1>(a);
    separable_forward_strided<scalar_t>(a);
  });
  return static_cast<int>(layout);
}

// Returns whether the gather stores several channels at once.
template <typename scalar_t>
int backward(SeparableArgs a, int order) {
  using T = accumulate_t<scalar_t>;
  using word_t = std::conditional_t<sizeof(scalar_t) == 2, uint16_t, T>;
  constexpr int v = kGatherVector<scalar_t>, element = sizeof(scalar_t);
  const int64_t entries = a.rois * (a.all_levels ? a.levels : 1) + 1;
  std::vector<Window> windows(entries);
  std::vector<int> rois(entries);
  std::vector<int64_t> begin(2 * a.images * a.levels);
  const WindowLists lists{windows.data(), rois.data(), begin.data()};
  CropCopy copy = divide_copy(a, v, element);
  std::vector<uint64_t> crops(a.rois * a.slots * a.bins[0] * a.bins[1] * copy.pitch + 2,
                              0xA5A5A5A5A5A5A5A5);
  copy.data = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(crops.data()) + 15) / 16 * 16);
  LaunchShape shape = divide_plan(a, copy, element);
  emulation::launch(dim3(shape.blocks), dim3(shape.threads), shape.shared_bytes, order,
                    [&] { separable_plan<T, word_t>(a, lists, copy); });
  shape = divide_backward(&a, copy, v, element, sizeof(T));
  emulation::launch(dim3(shape.blocks), dim3(shape.threads), shape.shared_bytes, order,
                    [&] { separable_backward<scalar_t>(a, lists); });
  return a.vector_maps;
}

template <typename scalar_t>
int boxes(SeparableArgs a, int order) {
  const LaunchShape shape = divide_boxes(&a, sizeof(accumulate_t<scalar_t>));
  emulation::launch(dim3(shape.blocks), dim3(shape.threads), shape.shared_bytes, order,
                    [&] { separable_backward_boxes<scalar_t>(a); });
  return 0;
}

template <typename scalar_t>
int run(int kernel, const SeparableArgs& args, int order) {
  return kernel == 0   ? forward<scalar_t>(args, order)
         : kernel == 1 ? backward<scalar_t>(args, order)
                       : boxes<scalar_t>(args, order);
}

}  // namespace
}  // namespace segroi::cuda

extern "C" {

int args_size() {
  return sizeof(segroi::cuda::SeparableArgs);
}

double first_area(int finest, double canonical_size, int canonical_level) {
  return segroi::make_level_map(finest, 1, canonical_size, canonical_level).first_area;
}

// kernel: 0 forward, 1 gradient by the maps, 2 by the boxes; dtype as in DType. Returns the
// forward's Layout.
int run_separable(int kernel, int dtype, const segroi::cuda::SeparableArgs* args, int order) {
  switch (static_cast<segroi::cuda::DType>(dtype)) {
    case segroi::cuda::DType::f64:
      return segroi::cuda::run<double>(kernel, *args, order);
    case segroi::cuda::DType::f32:
      return segroi::cuda::run<float>(kernel, *args, order);
    case segroi::cuda::DType::f16:
      return segroi::cuda::run<_Float16>(kernel, *args, order);
    default:
      return segroi::cuda::run<segroi::cuda::BFloat16>(kernel, *args, order);
  }
}
}
