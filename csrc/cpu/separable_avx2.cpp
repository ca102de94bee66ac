// The separable engine's kernels for avx2. Only they are compiled for it: the headers above the
// pragma hold inline functions that the linker may share with code that runs on any machine.
#if defined(__x86_64__)
#include <ATen/core/Tensor.h>

#include <algorithm>

#include "cpu/separable_kernels.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#pragma GCC optimize("fp-contract=fast")
namespace segroi::avx2 {
#include "cpu/separable_simd.h"
}  // namespace segroi::avx2
#pragma GCC pop_options
#endif
