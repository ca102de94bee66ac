// The memory behind large results and gradients.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace segroi {

// Ask for huge pages behind a large tensor that nobody has touched yet.
void hint_huge_pages(const at::Tensor& t);

// An uninitialised tensor. From 4 MB on, where malloc may map fresh pages for it and give them
// back when it is freed, it comes in huge pages, and a block that was freed before serves again:
// mapping and clearing pages takes longer than pooling into them, and does not get faster with more
// threads. At most SEGROI_KEEP_MB (512) of freed blocks are kept; 0 keeps none.
//
// `zero`, where given, is told whether the memory is known to hold zeros.
at::Tensor empty_large(at::IntArrayRef sizes, at::IntArrayRef strides,
                       const at::TensorOptions& options, bool* zero = nullptr);
at::Tensor empty_large(at::IntArrayRef sizes, at::MemoryFormat format,
                       const at::TensorOptions& options, bool* zero = nullptr);

}  // namespace segroi
