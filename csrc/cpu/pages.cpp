#include "cpu/pages.h"

#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <cstdlib>
#include <mutex>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace segroi {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20, kLargeBytes = int64_t{4} << 20;
constexpr int64_t kKeptMegabytes = 512;

// Memory mapped for one tensor; its data begin with the first whole huge page.
struct Block {
  void* pages = nullptr;
  size_t length = 0;

  void* data() const {
    const uintptr_t start = reinterpret_cast<uintptr_t>(pages);
    return reinterpret_cast<void*>((start + kHugePageBytes - 1) & -kHugePageBytes);
  }
};

// Freed blocks, the oldest first.
class Kept {
 public:
  // The smallest block that is long enough and at most twice as long; no pages where there is none.
  Block take(size_t length) {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t best = blocks_.size();
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const size_t has = blocks_[i].length;
      if (has < length || has > 2 * length) continue;
      if (best == blocks_.size() || has < blocks_[best].length) best = i;
    }
    if (best == blocks_.size()) return {};
    const Block block = blocks_[best];
    blocks_.erase(blocks_.begin() + best);
    bytes_ -= block.length;
    return block;
  }

  void give(Block block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back(block);
    bytes_ += block.length;
    while (bytes_ > limit_) {
      bytes_ -= blocks_.front().length;
      munmap(blocks_.front().pages, blocks_.front().length);
      blocks_.erase(blocks_.begin());
    }
  }

 private:
  static size_t limit() {
    const char* asked = std::getenv("SEGROI_KEEP_MB");
    const long long megabytes = asked == nullptr ? kKeptMegabytes : std::atoll(asked);
    return static_cast<size_t>(megabytes > 0 ? megabytes : 0) << 20;
  }

  std::mutex mutex_;
  std::vector<Block> blocks_;
  size_t bytes_ = 0;
  const size_t limit_ = limit();
};

Kept& kept() {
  static Kept* const all = new Kept;  // tensors may outlive static destruction
  return *all;
}

void give_back(void* context) {
  Block* const block = static_cast<Block*>(context);
  kept().give(*block);
  delete block;
}

}  // namespace

void hint_huge_pages(const at::Tensor& t) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t from = (begin + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t to = (begin + t.nbytes()) / kHugePageBytes * kHugePageBytes;
  if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
}

at::Tensor empty_large(at::IntArrayRef sizes, at::IntArrayRef strides,
                       const at::TensorOptions& options, bool* zero) {
  if (zero != nullptr) *zero = false;
  const int64_t bytes = c10::multiply_integers(sizes) * options.dtype().itemsize();
  if (bytes < kLargeBytes) return at::empty_strided(sizes, strides, options);
  Block block = kept().take(bytes + kHugePageBytes);
  if (block.pages == nullptr) {
    block.length = bytes + kHugePageBytes;
    block.pages =
        mmap(nullptr, block.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block.pages == MAP_FAILED) return at::empty_strided(sizes, strides, options);
    madvise(block.data(), bytes, MADV_HUGEPAGE);
    if (zero != nullptr) *zero = true;
  }
  // resizable like any other storage: a larger one comes from torch's allocator
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes,
                       at::DataPtr(block.data(), new Block(block), &give_back, at::kCPU),
                       c10::GetCPUAllocator(), /*resizable=*/true);
  return at::empty({0}, options).set_(storage, 0, sizes, strides);
}

#else

void hint_huge_pages(const at::Tensor&) {}

at::Tensor empty_large(at::IntArrayRef sizes, at::IntArrayRef strides,
                       const at::TensorOptions& options, bool* zero) {
  if (zero != nullptr) *zero = false;
  return at::empty_strided(sizes, strides, options);
}

#endif

at::Tensor empty_large(at::IntArrayRef sizes, at::MemoryFormat format,
                       const at::TensorOptions& options, bool* zero) {
  const at::DimVector strides = format == at::MemoryFormat::ChannelsLast
                                    ? at::DimVector(c10::get_channels_last_strides_2d(sizes))
                                    : at::DimVector(c10::contiguous_strides(sizes));
  return empty_large(sizes, strides, options, zero);
}

namespace {

at::Tensor empty_large_like(const at::Tensor& like, at::IntArrayRef size, bool channels_last) {
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  if (!like.is_cpu()) return at::empty(size, like.options(), format);
  return empty_large(size, format, like.options());
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CompositeExplicitAutograd, m) {
  m.impl("empty_large", &empty_large_like);
}

}  // namespace segroi
