// How a kernel reports a wrong value (a NaN box, a batch index out of range) without a host
// synchronisation: it stores one word into mapped host memory, which the next operator call on that
// device, or segroi.ops.check_errors(), reads. Every offender writes; the last store stays.
#pragma once

#include <cstdint>

namespace segroi {

enum class OpCode : int64_t {
  multi_level_roi_align = 1,
  crop_and_resize,
  encompass_crop,
  encompassing_boxes,
  stack_rows
};

constexpr int kOpCodeShift = 48;  // the low bits hold the index of the offending RoI

constexpr int64_t error_word(OpCode op, int64_t roi) {
  return static_cast<int64_t>(op) << kOpCodeShift | roi;
}

// The word of `device` as its kernels see it. Host only; safe during CUDA graph capture.
int64_t* error_word_of(int device);

// The same; throws what an earlier kernel left there. A backward pass does not ask: its forward
// pass found the same, and the caller of backward() is far from the RoIs.
int64_t* error_flag(int device);

}  // namespace segroi
