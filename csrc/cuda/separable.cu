// Launches of the separable kernels: the one file that instantiates them.
#include <c10/cuda/CUDAException.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cuda/separable_backward.cuh"
#include "cuda/separable_boxes.cuh"
#include "cuda/separable_forward_strided.cuh"
#include "cuda/separable_launch.h"
#include "cuda/separable_plan.cuh"

namespace segroi::cuda {
namespace {

template <typename Body>
void with_type(DType dtype, Body body) {
  switch (dtype) {
    case DType::f64:
      return body(double{});
    case DType::f32:
      return body(float{});
    case DType::f16:
      return body(c10::Half{});
    case DType::bf16:
      return body(c10::BFloat16{});
  }
}

void check_blocks(const LaunchShape& shape) {
  TORCH_CHECK(shape.blocks < int64_t{1} << 31, "segroi: RoIs x bins x channels must be fewer than ",
              "2^31 blocks of work for one CUDA launch, got ", shape.blocks);
}

template <typename Kernel, typename... Args>
void launch(Kernel kernel, const LaunchShape& shape, cudaStream_t stream, const Args&... args) {
  check_blocks(shape);
  if (shape.blocks == 0) return;
  kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, stream>>>(
      args...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

void launch_forward(SeparableArgs args, DType dtype, int multiprocessors, cudaStream_t stream) {
  with_type(dtype, [&](auto zero) {
    using scalar_t = decltype(zero);
    constexpr int v = 16 / sizeof(scalar_t);
    const Layout layout = choose_layout(args, v, sizeof(scalar_t));
    const LaunchShape shape =
        divide_forward(&args, layout, v, sizeof(accumulate_t<scalar_t>), multiprocessors);
    launch(layout == Layout::vector          ? &separable_forward_channels_last<scalar_t, v>
           : layout == Layout::channels_last ? &separable_forward_channels_last<scalar_t, 1>
                                             : &separable_forward_strided<scalar_t>,
           shape, stream, args);
  });
}

void launch_backward_maps(SeparableArgs args, DType dtype, const WindowLists& lists,
                          const CropCopy& copy, cudaStream_t stream) {
  with_type(dtype, [&](auto zero) {
    using scalar_t = decltype(zero);
    using T = accumulate_t<scalar_t>;
    using word_t = std::conditional_t<sizeof(scalar_t) == 2, uint16_t, T>;
    launch(&separable_plan<T, word_t>, divide_plan(args, copy, sizeof(scalar_t)), stream, args,
           lists, copy);
    const LaunchShape shape =
        divide_backward(&args, copy, kGatherVector<scalar_t>, sizeof(scalar_t), sizeof(T));
    launch(&separable_backward<scalar_t>, shape, stream, args, lists);
  });
}

void launch_backward_boxes(SeparableArgs args, DType dtype, cudaStream_t stream) {
  with_type(dtype, [&](auto zero) {
    using scalar_t = decltype(zero);
    const LaunchShape shape = divide_boxes(&args, sizeof(accumulate_t<scalar_t>));
    launch(&separable_backward_boxes<scalar_t>, shape, stream, args);
  });
}

}  // namespace segroi::cuda
