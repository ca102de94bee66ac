// Tensors -> SeparableArgs, and the launches of separable.cu. For the operators' .cu files.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <vector>

#include "checks.h"
#include "cuda/separable_launch.h"
#include "layout.h"

namespace segroi::cuda {

// separable.cu: one launch each, backward_maps two.
void launch_forward(SeparableArgs args, DType dtype, int multiprocessors, cudaStream_t stream);
void launch_backward_maps(SeparableArgs args, DType dtype, const WindowLists& lists,
                          const CropCopy& copy, cudaStream_t stream);
void launch_backward_boxes(SeparableArgs args, DType dtype, cudaStream_t stream);

inline DType dtype_of(const char* op, const at::Tensor& map) {
  switch (map.scalar_type()) {
    case at::kDouble:
      return DType::f64;
    case at::kFloat:
      return DType::f32;
    case at::kHalf:
      return DType::f16;
    case at::kBFloat16:
      return DType::bf16;
    default:
      TORCH_CHECK_TYPE(false, op, ": features must be float64, float32, float16 or bfloat16, got ",
                       describe(map));
  }
}

// Rows of `boxes`, checked before; the columns of y start, x start, y end, x end.
inline void set_boxes(SeparableArgs* args, const at::Tensor& boxes, std::array<int, 4> columns) {
  args->rois = boxes.size(0);
  args->boxes = boxes.const_data_ptr();
  args->box_stride = boxes.stride(0);
  args->box_column_stride = boxes.stride(1);
  std::copy(columns.begin(), columns.end(), args->box_column);
  args->box_columns = static_cast<int>(boxes.size(1));
}

// An integer of each RoI; for the kernels 0 bytes are one unsigned byte.
inline void set_index(const at::Tensor& index, const void** data, int* bytes, int64_t* stride) {
  *data = index.const_data_ptr();
  *bytes = index.scalar_type() == at::kByte ? 0 : static_cast<int>(index.element_size());
  *stride = index.stride(0);
}

inline void set_maps(SeparableArgs* args, const char* op, at::TensorList maps,
                     at::ArrayRef<double> scales) {
  SEGROI_CHECK(op, maps.size() <= kMaxLevels, "features",
               c10::str("at most ", kMaxLevels, " maps on CUDA"), maps.size());
  args->levels = static_cast<int>(maps.size());
  args->images = maps[0].size(0);
  args->channels = maps[0].size(1);
  for (size_t l = 0; l < maps.size(); ++l) {
    const at::Tensor& m = maps[l];
    SEGROI_CHECK(op, m.size(2) < 1 << 30 && m.size(3) < 1 << 30, "features",
                 "fewer than 2^30 rows and columns", describe(m));
    args->maps[l] = {const_cast<void*>(m.const_data_ptr()),
                     {m.stride(0), m.stride(1), m.stride(2), m.stride(3)},
                     {static_cast<int>(m.size(2)), static_cast<int>(m.size(3))},
                     scales[l]};
  }
}

// `crops` is [K, slots, C, h, w].
inline void set_crops(SeparableArgs* args, const at::Tensor& crops) {
  args->crops = const_cast<void*>(crops.const_data_ptr());
  args->slots = static_cast<int>(crops.size(1));
  args->crop_stride_k = crops.stride(0);
  args->crop_stride_slot = crops.stride(1);
  args->crop_stride = {0, crops.stride(2), crops.stride(3), crops.stride(4)};
}

// The kernels step from row to row and from pixel to pixel by 32 bits, in bytes.
inline at::Tensor with_small_strides(const at::Tensor& t, int64_t first) {
  bool small = true;
  for (int64_t d = first; d < t.dim(); ++d) small &= t.stride(d) < int64_t{1} << 28;
  return small ? t : t.contiguous();
}

// A fresh result [K, slots * C, h, w], or [K, slots, C, h, w] for `stack`, in the layout of `like`.
inline at::Tensor empty_crops(const at::Tensor& like, int64_t rois, int64_t slots, int64_t h,
                              int64_t w, bool stack) {
  const int64_t c = like.size(1);
  if (!is_channels_last(like)) {
    return stack ? at::empty({rois, slots, c, h, w}, like.options())
                 : at::empty({rois, slots * c, h, w}, like.options());
  }
  // not permuted, which would be a view, and autograd lets nobody write into a view in place
  return stack ? at::empty_strided({rois, slots, c, h, w},
                                   {slots * h * w * c, h * w * c, 1, w * c, c}, like.options())
               : at::empty({rois, slots * c, h, w}, like.options(), at::MemoryFormat::ChannelsLast);
}

inline void forward(SeparableArgs* args, const char* op, at::TensorList maps,
                    at::ArrayRef<double> scales, const at::Tensor& crops) {
  if (crops.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(maps[0].device());
  std::vector<at::Tensor> small;
  for (const at::Tensor& m : maps) small.push_back(with_small_strides(m, 2));
  set_maps(args, op, small, scales);
  set_crops(args, crops);
  int multiprocessors = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount,
                                        maps[0].get_device()));
  launch_forward(*args, dtype_of(op, maps[0]), multiprocessors, c10::cuda::getCurrentCUDAStream());
}

// Gradients of all maps, in their layouts; `grad` is [K, slots, C, h, w].
inline std::vector<at::Tensor> backward_maps(SeparableArgs args, const char* op,
                                             at::TensorList maps, at::ArrayRef<double> scales,
                                             const at::Tensor& grad) {
  const c10::cuda::CUDAGuard guard(maps[0].device());
  std::vector<at::Tensor> grads;
  for (const at::Tensor& m : maps) grads.push_back(at::empty_like(m, layout_of(m)));
  set_maps(&args, op, grads, scales);
  const at::Tensor from = with_small_strides(grad, 2);
  set_crops(&args, from);
  if (args.images * args.channels == 0) return grads;
  const int64_t entries = args.rois * (args.all_levels ? args.levels : 1);
  SEGROI_CHECK(op, entries < int64_t{1} << 31, "rois", "fewer than 2^31 (times levels)", entries);
  const int64_t lists = args.images * args.levels;
  const at::Tensor begin = at::empty({2 * lists}, grad.options().dtype(at::kLong));
  const at::Tensor rois = at::empty({entries, 5}, grad.options().dtype(at::kInt));
  Window* windows = reinterpret_cast<Window*>(rois.mutable_data_ptr<int>());
  const int element = static_cast<int>(grad.element_size());
  CropCopy copy = divide_copy(args, 16 / std::max(element, 4), element);
  at::Tensor crops;
  SEGROI_CHECK(op, copy.pitch * args.bins[0] * args.bins[1] < int64_t{1} << 31, "output_size",
               "crops of fewer than 2^31 elements", describe(grad));
  if (copy.blocks > 0) {
    crops =
        at::empty({args.rois * args.slots, args.bins[0], args.bins[1], copy.pitch}, grad.options());
    copy.data = crops.mutable_data_ptr();
  }
  launch_backward_maps(
      args, dtype_of(op, maps[0]),
      {windows, reinterpret_cast<int*>(windows + entries), begin.mutable_data_ptr<int64_t>()}, copy,
      c10::cuda::getCurrentCUDAStream());
  return grads;
}

// Gradient of the boxes, like `boxes`; zero in a column that is no coordinate.
inline at::Tensor backward_boxes(SeparableArgs args, const char* op, at::TensorList maps,
                                 at::ArrayRef<double> scales, const at::Tensor& grad,
                                 const at::Tensor& boxes) {
  const c10::cuda::CUDAGuard guard(maps[0].device());
  const at::Tensor result = at::empty_like(boxes, at::MemoryFormat::Contiguous);
  set_maps(&args, op, maps, scales);
  set_crops(&args, grad);
  args.grad_boxes = result.mutable_data_ptr();
  launch_backward_boxes(args, dtype_of(op, maps[0]), c10::cuda::getCurrentCUDAStream());
  return result;
}

}  // namespace segroi::cuda
