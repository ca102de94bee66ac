// Host-side error texts: "<op>: <argument> must be <expected>, got <what came>".
#pragma once

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

}  // namespace segroi
