// The memory behind large fresh tensors: huge pages, without which page faults dominate, and zeros
// that nobody writes.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace segroi {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// Ask for huge pages behind a large tensor that nobody has touched yet.
inline void hint_huge_pages(const at::Tensor& t) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t begin = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t from = (begin + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t to = (begin + t.nbytes()) / kHugePageBytes * kHugePageBytes;
  if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
}

// malloc gives larger blocks back to the operating system when they are freed, so that the next one
// comes as fresh pages, which the kernel has cleared: clearing them again is work for nothing.
constexpr int64_t kFreshBytes = int64_t{32} << 20;

// Zeros [sizes] in `format`, in memory mapped for them alone: aligned to huge pages and not touched
// yet. An undefined tensor where that does not pay or cannot be had.
inline at::Tensor zero_pages(at::IntArrayRef sizes, at::MemoryFormat format,
                             const at::TensorOptions& options) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const int64_t bytes = c10::multiply_integers(sizes) * options.dtype().itemsize();
  if (bytes < kFreshBytes) return {};
  const size_t length = bytes + kHugePageBytes;
  void* const pages =
      mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return {};
  const uintptr_t start = reinterpret_cast<uintptr_t>(pages);
  void* const data = reinterpret_cast<void*>((start + kHugePageBytes - 1) & -kHugePageBytes);
  madvise(data, bytes, MADV_HUGEPAGE);
  const at::DimVector strides = format == at::MemoryFormat::ChannelsLast
                                    ? at::DimVector(c10::get_channels_last_strides_2d(sizes))
                                    : at::DimVector(c10::contiguous_strides(sizes));
  return at::from_blob(
      data, sizes, strides, [pages, length](void*) { munmap(pages, length); }, options);
#else
  return {};
#endif
}

}  // namespace segroi
