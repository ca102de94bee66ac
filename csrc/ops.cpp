// Every schema of segroi on one screen. Kernels register themselves at the foot of cpu/<op>.cpp and
// cuda/<op>.cu, autograd in autograd/<op>.cpp; fake kernels (and encompass_crop's autograd) stand
// in segroi/ops/<op>.py.
#include <torch/library.h>
#include <torch/version.h>

#include <string>

#ifndef SEGROI_CUDA_ARCHS
#define SEGROI_CUDA_ARCHS ""
#endif
#ifndef SEGROI_CUDA_VERSION
#define SEGROI_CUDA_VERSION ""
#endif
#ifndef SEGROI_SANITIZERS
#define SEGROI_SANITIZERS ""
#endif

namespace {

c10::Dict<std::string, std::string> build_info() {
  c10::Dict<std::string, std::string> info;
  info.insert("torch", TORCH_VERSION);
  info.insert("compiler", __VERSION__);
  info.insert("cuda", SEGROI_CUDA_VERSION);  // "" when built for the CPU only
  info.insert("cuda_archs", SEGROI_CUDA_ARCHS);
  info.insert("sanitizers", SEGROI_SANITIZERS);
#ifdef _OPENMP
  info.insert("openmp", std::to_string(_OPENMP));
#else
  info.insert("openmp", "");
#endif
#ifdef NDEBUG
  info.insert("debug", "");
#else
  info.insert("debug", "1");
#endif
  return info;
}

}  // namespace

TORCH_LIBRARY(segroi, m) {
  m.def(
      "encompassing_boxes(Tensor boxes, SymInt[] image_size, SymInt[] grid_size, "
      "bool zero_invalid) -> Tensor");
  m.def("stack_rows(Tensor branch, SymInt[] rows, bool zero_invalid) -> Tensor");
  // Crops are ordered by shape, then by map; sizes are those of the maps, four numbers each.
  m.def(
      "encompass_crop(Tensor[] features, Tensor cells, Tensor batch_index, Tensor source, "
      "SymInt[] shapes, SymInt[] rows, SymInt[] grid, bool zero_invalid) -> Tensor[]");
  m.def(
      "encompass_crop.out(Tensor[] features, Tensor cells, Tensor batch_index, Tensor source, "
      "SymInt[] shapes, SymInt[] rows, SymInt[] grid, bool zero_invalid, *, Tensor(a!)[] out) -> "
      "()");
  m.def(
      "encompass_crop_backward(Tensor[] grads, Tensor cells, Tensor batch_index, Tensor source, "
      "SymInt[] sizes, SymInt[] shapes, SymInt[] rows, SymInt[] grid, bool channels_last) "
      "-> Tensor[]");
  m.def(
      "encompass_crop_packed(Tensor[] features, Tensor cells, Tensor batch_index, Tensor offsets, "
      "SymInt total, SymInt[] grid, bool zero_invalid) -> Tensor[]");
  m.def(
      "encompass_crop_packed_backward(Tensor[] grads, Tensor cells, Tensor batch_index, "
      "Tensor offsets, SymInt[] sizes, SymInt[] grid, bool channels_last) -> Tensor[]");
  m.def(
      "multi_level_roi_align(Tensor[] features, Tensor rois, Tensor? levels, int[] output_size, "
      "float[] spatial_scales, int sampling_ratio, bool aligned, str reduce, int finest_level, "
      "float canonical_size, int canonical_level, str on_invalid) -> Tensor");
  m.def(
      "multi_level_roi_align_out(Tensor[] features, Tensor rois, Tensor? levels, "
      "int[] output_size, float[] spatial_scales, int sampling_ratio, bool aligned, str reduce, "
      "int finest_level, float canonical_size, int canonical_level, str on_invalid, "
      "Tensor(a!) out) -> ()");
  m.def(
      "multi_level_roi_align_backward(Tensor grad, Tensor[] features, Tensor rois, Tensor? levels, "
      "int[] output_size, float[] spatial_scales, int sampling_ratio, bool aligned, str reduce, "
      "int finest_level, float canonical_size, int canonical_level, str on_invalid, "
      "bool need_features, bool need_rois) "
      "-> (Tensor[], Tensor)");
  m.def(
      "crop_and_resize(Tensor features, Tensor boxes, Tensor box_index, int[2] crop_size, "
      "str method, float extrapolation_value, str coordinates, int pool, str on_invalid) -> "
      "Tensor");
  m.def(
      "crop_and_resize_out(Tensor features, Tensor boxes, Tensor box_index, int[2] crop_size, "
      "str method, float extrapolation_value, str coordinates, int pool, str on_invalid, "
      "Tensor(a!) out) -> ()");
  m.def(
      "crop_and_resize_backward(Tensor grad, Tensor features, Tensor boxes, Tensor box_index, "
      "int[2] crop_size, str method, float extrapolation_value, str coordinates, int pool, "
      "str on_invalid, bool[2] needs) -> (Tensor, Tensor)");
  // For what is made of results: on a CPU memory like theirs, see cpu/pages.h.
  m.def("empty_large(Tensor like, int[] size, bool channels_last) -> Tensor");
  // CUDA builds only: what asynchronous kernels found wrong (segroi/ops/errors.py).
  m.def("take_error(int device) -> str");
  m.def("build_info() -> Dict(str, str)", &build_info);  // how this library was compiled
}
