// What the threads of one block do together, and vector loads. Torch-free.
#pragma once

#include <cstdint>

namespace segroi {

constexpr int kWarp = 32;
constexpr unsigned kFullMask = 0xffffffffu;

#ifdef __CUDACC__
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
#endif

// Quotient by a divisor that many share: one multiplication. Exact while value * divisor < 2^32.
struct Divider {
  unsigned divisor, magic;

  __device__ explicit Divider(int d)
      : divisor(static_cast<unsigned>(d)), magic(d > 1 ? 0xffffffffu / divisor + 1 : 0) {}
  // Replaces *value by the remainder.
  __device__ __forceinline__ int split(int* value) const {
    const unsigned v = static_cast<unsigned>(*value);
    const unsigned quotient = magic != 0 ? __umulhi(v, magic) : v;
    *value = static_cast<int>(v - quotient * divisor);
    return static_cast<int>(quotient);
  }
};

// A stride in bytes; the operators hand on none that 32 bits do not hold.
template <typename T>
__device__ __forceinline__ unsigned step_bytes(int64_t stride) {
  return static_cast<unsigned>(stride * static_cast<int64_t>(sizeof(T)));
}

// p + i * step bytes in global memory, i >= 0. One instruction: left alone, the compiler takes p
// to pieces and adds them again for every access.
template <typename T>
__device__ __forceinline__ const T* step_by(const T* p, int i, unsigned step) {
#ifdef __CUDACC__
  const T* at;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(at) : "r"(i), "r"(step), "l"(p));
  __builtin_assume(__isGlobal(at));
  return at;
#else
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(p) +
                                    uint64_t{static_cast<unsigned>(i)} * step);
#endif
}

// V neighbouring elements: one 16-byte access where V * sizeof(T) is 16.
template <typename T, int V>
struct alignas(V * sizeof(T)) Vec {
  T v[V];
};

template <typename T, int V>
__device__ __forceinline__ Vec<T, V> load_vec(const T* p) {
  return *reinterpret_cast<const Vec<T, V>*>(p);
}

template <typename T, int V>
__device__ __forceinline__ void store_vec(T* p, const Vec<T, V>& value) {
  *reinterpret_cast<Vec<T, V>*>(p) = value;
}

// Sum of `value` over the lanes up to this one.
__device__ __forceinline__ int warp_inclusive_scan(int value) {
  const int lane = threadIdx.x % kWarp;
  for (int d = 1; d < kWarp; d *= 2) {
    const int left = __shfl_up_sync(kFullMask, value, d);
    if (lane >= d) value += left;
  }
  return value;
}

// Sum of `value` over the threads before this one, and over all of them. `partial` holds one int a
// warp; every thread of a block of whole warps calls, and may call again at once.
__device__ __forceinline__ int block_exclusive_scan(int value, int* partial, int* total) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int inclusive = warp_inclusive_scan(value);
  if (lane == kWarp - 1) partial[warp] = inclusive;
  __syncthreads();
  int before = 0, sum = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) before += partial[w];
    sum += partial[w];
  }
  __syncthreads();
  *total = sum;
  return before + inclusive - value;
}

// Sum over the block in a fixed order, valid in thread 0. `partial` holds one T a warp.
template <typename T>
__device__ __forceinline__ T block_sum(T value, T* partial) {
  for (int d = kWarp / 2; d > 0; d /= 2) value += __shfl_down_sync(kFullMask, value, d);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = 0;
  if (threadIdx.x == 0) {
    for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) sum += partial[w];
  }
  __syncthreads();
  return sum;
}

}  // namespace segroi
