// The separable engine's kernels for baseline. Only they are compiled for it: the headers above the
// pragma hold inline functions that the linker may share with code that runs on any machine.
#include <ATen/core/Tensor.h>

#include <algorithm>

#include "cpu/separable_kernels.h"

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
namespace segroi::baseline {
#include "cpu/separable_simd.h"
}  // namespace segroi::baseline
#pragma GCC pop_options
