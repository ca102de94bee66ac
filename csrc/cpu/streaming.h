// Copying and zeroing past the caches, for outputs too large to be found there again. Torch-free.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace segroi {

constexpr int64_t kStreamBytes = int64_t{16} << 20;  // outputs from this size on are streamed

// Bytes from p to the next cache line, at most n: streaming a part of a line gains nothing.
inline int64_t bytes_to_line(const void* p, int64_t n) {
  const int64_t head = -reinterpret_cast<intptr_t>(p) & 63;
  return head < n ? head : n;
}

// As memcpy. With kStream, finish with stream_fence() before another thread reads.
template <bool kStream>
inline void copy_bytes(char* dst, const char* src, int64_t n) {
#ifdef __SSE2__
  if (kStream) {
    int64_t i = bytes_to_line(dst, n);
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
    int64_t i = bytes_to_line(dst, n);
    std::memset(dst, 0, i);
    const __m128i zero = _mm_setzero_si128();
    for (; i + 64 <= n; i += 64) {
      __m128i* to = reinterpret_cast<__m128i*>(dst + i);
      for (int part = 0; part < 4; ++part) _mm_stream_si128(to + part, zero);
    }
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

}  // namespace segroi
