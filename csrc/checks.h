// Host-side error texts: "<op>: <argument> must be <expected>, got <what came>".
#pragma once

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <sstream>
#include <string>

namespace segroi {

// "float32 Tensor[2, 5] on cpu"
inline std::string describe(const at::Tensor& t) {
  std::ostringstream s;
  s << t.scalar_type() << " Tensor" << t.sizes() << " on " << t.device();
  return s.str();
}

#define SEGROI_CHECK(op, cond, arg, expected, got) \
  TORCH_CHECK_VALUE(cond, op, ": ", arg, " must be ", expected, ", got ", got)

inline bool share_memory(const at::Tensor& a, const at::Tensor& b) {
  const at::MemOverlapStatus status = at::get_overlap_status(a, b);
  if (status == at::MemOverlapStatus::TooHard) return a.is_alias_of(b);
  return status != at::MemOverlapStatus::No;
}

// Refuses an `out` whose elements coincide with each other or with what the call reads.
inline void check_apart(const char* op, const at::Tensor& out, at::TensorList reads) {
  bool apart = at::has_internal_overlap(out) != at::MemOverlap::Yes;
  for (const at::Tensor& read : reads) apart = apart && !share_memory(out, read);
  SEGROI_CHECK(op, apart, "out", "memory of its own, every element once",
               describe(out) + " with strides " + c10::str(out.strides()));
}

}  // namespace segroi
