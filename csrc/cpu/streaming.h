// Copying and zeroing past the caches, for outputs too large to be found there again; and the hint
// that a large fresh output be backed by huge pages, without which page faults dominate.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace segroi {

constexpr int64_t kStreamBytes = int64_t{16} << 20;  // outputs from this size on are streamed
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// Bytes up to the next 16-byte boundary of p, at most n.
inline int64_t bytes_to_alignment(const void* p, int64_t n) {
  const int64_t head = -reinterpret_cast<intptr_t>(p) & 15;
  return head < n ? head : n;
}

// As memcpy. With kStream, finish with stream_fence() before another thread reads.
template <bool kStream>
inline void copy_bytes(char* dst, const char* src, int64_t n) {
#ifdef __SSE2__
  if (kStream) {
    int64_t i = bytes_to_alignment(dst, n);
    std::memcpy(dst, src, i);
    for (; i + 64 <= n; i += 64) {
      const __m128i* from = reinterpret_cast<const __m128i*>(src + i);
      __m128i* to = reinterpret_cast<__m128i*>(dst + i);
      const __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1);
      const __m128i c = _mm_loadu_si128(from + 2), d = _mm_loadu_si128(from + 3);
      _mm_stream_si128(to, a);
      _mm_stream_si128(to + 1, b);
      _mm_stream_si128(to + 2, c);
      _mm_stream_si128(to + 3, d);
    }
    std::memcpy(dst + i, src + i, n - i);
    return;
  }
#endif
  std::memcpy(dst, src, n);
}

template <bool kStream>
inline void zero_bytes(char* dst, int64_t n) {
#ifdef __SSE2__
  if (kStream) {
    int64_t i = bytes_to_alignment(dst, n);
    std::memset(dst, 0, i);
    const __m128i zero = _mm_setzero_si128();
    for (; i + 16 <= n; i += 16) _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i), zero);
    std::memset(dst + i, 0, n - i);
    return;
  }
#endif
  std::memset(dst, 0, n);
}

inline void stream_fence() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// Ask for huge pages behind a large tensor that nobody has touched yet.
inline void hint_huge_pages(const at::Tensor& t) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t begin = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t from = (begin + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t to = (begin + t.nbytes()) / kHugePageBytes * kHugePageBytes;
  if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
}

}  // namespace segroi
