// Kernels for AVX-512, compiled by function attributes: the build needs no flag, and the file is
// empty on other architectures.
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
#pragma clang attribute push(                                                    \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // inside GCC's own intrinsics
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#define SEGROI_AVX512
#include "cpu/separable_isa_backward.h"

namespace segroi::cpu {

Kernels<float> kernels_avx512(Element element) {
  return float_kernels(element);
}

}  // namespace segroi::cpu

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
