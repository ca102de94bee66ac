#include "cuda/device_errors.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <mutex>
#include <string>

namespace segroi {
namespace {

// Mapped pages are shared by all devices, so one page serves; it lives as long as the process.
std::atomic<int64_t>* words() {
  static std::atomic<int64_t>* const page = [] {
    c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
    void* memory = nullptr;
    const size_t bytes = sizeof(std::atomic<int64_t>) * C10_COMPILE_TIME_MAX_GPUS;
    C10_CUDA_CHECK(cudaHostAlloc(&memory, bytes, cudaHostAllocMapped | cudaHostAllocPortable));
    return new (memory) std::atomic<int64_t>[C10_COMPILE_TIME_MAX_GPUS]();
  }();
  return page;
}

// By OpCode; # stands for the index of the offender.
constexpr std::array<const char*, 6> kTexts = {
    "",
    "multi_level_roi_align: rois[#] must be finite and begin with the index of an image (and "
    "levels[#] be that of a map)",
    "crop_and_resize: boxes[#] must be finite and box_index[#] the index of an image",
    "encompass_crop: cells[#] must lie on the grid and fit in their shape, and batch_index[#] be "
    "the "
    "index of an image",
    "encompassing_boxes: boxes[#] must be finite",
    "stack_rows: branch[#] must be -1 or a stack that has a row left"};

std::string describe_word(int64_t word) {
  const int64_t index = word & ((int64_t{1} << kOpCodeShift) - 1);
  std::string text = kTexts.at(word >> kOpCodeShift);
  for (size_t at = 0; (at = text.find('#', at)) != std::string::npos;) {
    text.replace(at, 1, std::to_string(index));
  }
  return text + ", got something else";
}

// What kernels of `device` have reported since the last call, or "".
std::string take_error(int64_t device) {
  TORCH_CHECK_VALUE(device >= 0 && device < c10::cuda::device_count(),
                    "take_error: device must be ", "an existing CUDA device, got ", device);
  const int64_t word = words()[device].exchange(0);
  return word == 0 ? "" : describe_word(word);
}

}  // namespace

int64_t* error_word_of(int device) {
  static_assert(sizeof(std::atomic<int64_t>) == sizeof(int64_t));
  return reinterpret_cast<int64_t*>(&words()[device]);
}

int64_t* error_flag(int device) {
  if (words()[device].load(std::memory_order_relaxed) != 0) {
    TORCH_CHECK_VALUE(false, take_error(device), " (found by an earlier, asynchronous call)");
  }
  return error_word_of(device);
}

TORCH_LIBRARY_IMPL(segroi, CompositeExplicitAutograd, m) {
  m.impl("take_error", &take_error);
}

}  // namespace segroi
