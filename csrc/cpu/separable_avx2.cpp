// Kernels for AVX2, compiled by function attributes: the build needs no flag, and the file is empty
// on other architectures.
#include "cpu/separable_kernels.h"
#include "cpu/streaming.h"

#ifdef __x86_64__
// Whatever these bring is compiled for the baseline, before the target changes.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <immintrin.h>

#include <cstring>
#include <type_traits>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define SEGROI_AVX2
#include "cpu/separable_isa_backward.h"

namespace segroi::cpu {

Kernels<float> kernels_avx2(Element element) {
  return float_kernels(element);
}

}  // namespace segroi::cpu

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
