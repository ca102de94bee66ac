// A build without CUDA: what a call with CUDA tensors is told. Not compiled beside csrc/cuda/.
#include <torch/library.h>

namespace {

void refuse(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK(false, op.schema().name(), " got CUDA tensors, but segroi was built without CUDA: ",
              "rebuild it where nvcc is (SEGROI_CUDA=1; `segroi doctor` says what is missing)");
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CUDA, m) {
  for (const char* op :
       {"encompassing_boxes", "stack_rows", "encompass_crop", "encompass_crop.out",
        "encompass_crop_backward", "encompass_crop_packed", "encompass_crop_packed_backward",
        "multi_level_roi_align", "multi_level_roi_align_out", "multi_level_roi_align_backward",
        "crop_and_resize", "crop_and_resize_out", "crop_and_resize_backward"}) {
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<&refuse>());
  }
}
