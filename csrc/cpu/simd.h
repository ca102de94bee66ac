// Vectors of one instruction set, all with the same few operations. Included by separable_<isa>.cpp
// after it has chosen its target: everything here is internal to that file.
//
//   load(p, m), store(p, v, m): the first n lanes, m = mask(n); the others read as 0
//   load(p, n), store(p, v, n): the same of numbers of 16 bits, where kShorts
//   pick(a, b, index):          lane i is element index[i] of a and b side by side
//   pick(a, index):             lane i is element index[i] modulo kWidth of a
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>

namespace {

#if defined(SEGROI_AVX512)

struct Vector {
  using T = float;
  using Reg = __m512;
  using Index = __m512i;
  using Mask = __mmask16;
  static constexpr int kWidth = 16;
  static constexpr int kTile = 16;   // accumulators of a long row
  static constexpr int kRows = 8;    // rows that share a step of lanes
  static constexpr int kPlanes = 8;  // planes that share the weight of a row
  static Mask mask(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }
  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set(float a) { return _mm512_set1_ps(a); }
  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static Reg load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, Reg v, Mask m) { _mm512_mask_storeu_ps(p, m, v); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Index index(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Reg pick(Reg a, Reg b, Index i) { return _mm512_permutex2var_ps(a, i, b); }
  static Reg pick(Reg a, Index i) { return _mm512_permutexvar_ps(i, a); }

  static constexpr bool kShorts = true;
  static Reg load(const c10::Half* p, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static Reg load(const c10::BFloat16* p, int64_t n) {
    const Index bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask(n), p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  }
  static void store(c10::Half* p, Reg v, int64_t n) {
    _mm256_mask_storeu_epi16(p, mask(n), _mm512_cvtps_ph(v, 0));
  }
  static void store(c10::BFloat16* p, Reg v, int64_t n) {
    const Index bits = _mm512_castps_si512(v), half = _mm512_set1_epi32(0x7fff);
    const Index odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    Index rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(half, odd)), 16);
    const Mask nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0));
    _mm256_mask_storeu_epi16(p, mask(n), _mm512_cvtepi32_epi16(rounded));
  }
};

#elif defined(SEGROI_AVX2)

alignas(32) const int32_t kMaskTable[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

struct Vector {
  using T = float;
  using Reg = __m256;
  using Index = __m256i;
  using Mask = __m256i;
  static constexpr int kWidth = 8;
  static constexpr int kTile = 8;
  static constexpr int kRows = 4;
  static constexpr int kPlanes = 4;
  static Mask mask(int64_t n) {
    const int64_t first = n >= 8 ? 0 : n <= 0 ? 8 : 8 - n;
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMaskTable + first));
  }
  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg set(float a) { return _mm256_set1_ps(a); }
  static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  static Reg load(const float* p, Mask m) { return _mm256_maskload_ps(p, m); }
  static void store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
  static void store(float* p, Reg v, Mask m) { _mm256_maskstore_ps(p, m, v); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Index index(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static Reg pick(Reg a, Index i) { return _mm256_permutevar8x32_ps(a, i); }
  static Reg pick(Reg a, Reg b, Index i) {
    const Reg from_a = _mm256_permutevar8x32_ps(a, i), from_b = _mm256_permutevar8x32_ps(b, i);
    return _mm256_blendv_ps(from_a, from_b, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
  }

  static constexpr bool kShorts = true;
  static Reg load(const c10::Half* p, int64_t n) { return _mm256_cvtph_ps(load_shorts(p, n)); }
  static Reg load(const c10::BFloat16* p, int64_t n) {
    const Index bits = _mm256_cvtepu16_epi32(load_shorts(p, n));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }
  static void store(c10::Half* p, Reg v, int64_t n) { store_shorts(p, _mm256_cvtps_ph(v, 0), n); }
  static void store(c10::BFloat16* p, Reg v, int64_t n) {
    const Index bits = _mm256_castps_si256(v), half = _mm256_set1_epi32(0x7fff);
    const Index odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    Index rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(half, odd)), 16);
    const Index nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    const __m128i low = _mm256_castsi256_si128(rounded);
    store_shorts(p, _mm_packus_epi32(low, _mm256_extracti128_si256(rounded, 1)), n);
  }

 private:
  static __m128i load_shorts(const void* p, int64_t n) {
    __m128i v = _mm_setzero_si128();
    std::memcpy(&v, p, n >= 8 ? 16 : 2 * n);
    return v;
  }
  static void store_shorts(void* p, __m128i v, int64_t n) {
    std::memcpy(p, &v, n >= 8 ? 16 : 2 * n);
  }
};

#else

// 16 bytes by the compiler's portable vectors: SSE2, NEON.
template <typename Scalar>
struct PortableVector {
  using T = Scalar;
  typedef T Reg __attribute__((vector_size(16)));
  static constexpr int kWidth = 16 / sizeof(T);
  static constexpr int kTile = 4;
  static constexpr int kRows = 2;
  static constexpr int kPlanes = 4;
  struct Index {
    uint8_t lane[kWidth];
  };
  using Mask = int64_t;
  static constexpr bool kShorts = false;
  static Mask mask(int64_t n) { return n > kWidth ? kWidth : n < 0 ? 0 : n; }
  static Reg zero() { return Reg{}; }
  static Reg set(T a) { return Reg{} + a; }
  static Reg load(const T* p) {
    Reg v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static Reg load(const T* p, Mask m) {
    if (m == kWidth) return load(p);
    Reg v{};
    for (int i = 0; i < m; ++i) v[i] = p[i];
    return v;
  }
  static void store(T* p, Reg v) { std::memcpy(p, &v, sizeof(v)); }
  static void store(T* p, Reg v, Mask m) {
    if (m == kWidth) return store(p, v);
    for (int i = 0; i < m; ++i) p[i] = v[i];
  }
  static Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  static Index index(const uint8_t* p) {
    Index i;
    std::memcpy(&i, p, sizeof(i));
    return i;
  }
  static Reg pick(Reg a, Index index) {
    Reg v{};
    for (int i = 0; i < kWidth; ++i) v[i] = a[index.lane[i] % kWidth];
    return v;
  }
  static Reg pick(Reg a, Reg b, Index index) {
    Reg v{};
    for (int i = 0; i < kWidth; ++i) {
      const int lane = index.lane[i];
      v[i] = lane < kWidth ? a[lane] : b[lane - kWidth];
    }
    return v;
  }
};
using Vector = PortableVector<float>;

#endif

}  // namespace
