// Attribute and arithmetic of torch-free functions that run on host and device.
#pragma once

#ifdef __CUDACC__
#define SEGROI_HD __host__ __device__ __forceinline__
#else
#define SEGROI_HD inline
#endif

namespace segroi {

// a * b rounded once, never contracted with a neighbouring sum to an FMA (nvcc's default), so that
// host and device find the same coordinates and take the same integer decisions.
SEGROI_HD float mul_rn(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

SEGROI_HD double mul_rn(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

}  // namespace segroi
