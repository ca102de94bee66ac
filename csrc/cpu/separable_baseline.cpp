// Kernels for any processor, and those for double.
#include "cpu/separable_isa_backward.h"

namespace segroi::cpu {

Kernels<float> kernels_baseline(Element element) {
  return float_kernels(element);
}
Kernels<double> kernels_double() {
  return kernels_of<PortableVector<double>, double>();
}

}  // namespace segroi::cpu
