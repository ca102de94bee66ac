// Runs CUDA kernel bodies on the CPU: every block's threads as fibers of one OS thread.
//
// Between two barriers a fiber runs undisturbed, in an order that the test chooses, so a missing
// barrier shows as a result that depends on the order. A barrier that only a part of the block (or
// warp) reaches ends the process with a message. Include this before the .cuh files.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <type_traits>
#include <vector>

#define SEGROI_CUDA_EMULATION 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static
#define __grid_constant__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulation {

constexpr int kWarp = 32, kMaxThreads = 1024, kStackBytes = 128 << 10;
enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  State state = State::done;
  unsigned exchanges = 0;  // warp exchanges so far: its parity picks the buffer
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<char> stacks;
  std::vector<unsigned char> shared;
  uint64_t slots[2][kMaxThreads];
  int votes[2] = {0, 0};
  unsigned block_barriers = 0;
  int threads = 0, current = 0;
  bool started = false;
  dim3 thread, block, block_dim, grid_dim;
  std::function<void()> body;
  jmp_buf scheduler;
};

inline Machine& machine() {
  static Machine m;
  return m;
}

inline void fail(const char* what) {
  Machine& m = machine();
  std::fprintf(stderr, "cuda_emulation: %s (block %u %u %u)\n", what, m.block.x, m.block.y,
               m.block.z);
  std::abort();
}

inline void yield(State why) {
  Machine& m = machine();
  Fiber& self = m.fibers[m.current];
  self.state = why;
  if (_setjmp(self.at) == 0) _longjmp(m.scheduler, 1);
}

inline void fiber_main() {
  for (;;) {
    machine().body();
    yield(State::done);
  }
}

inline void resume(int t) {
  Machine& m = machine();
  m.current = t;
  m.thread =
      dim3(t % m.block_dim.x, t / m.block_dim.x % m.block_dim.y, t / m.block_dim.x / m.block_dim.y);
  Fiber& f = m.fibers[t];
  if (_setjmp(m.scheduler) != 0) return;
  if (f.start.uc_stack.ss_sp == nullptr) {
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = &m.stacks[size_t(t) * kStackBytes];
    f.start.uc_stack.ss_size = kStackBytes;
    makecontext(&f.start, fiber_main, 0);
    setcontext(&f.start);
  }
  _longjmp(f.at, 1);
}

// Wakes [begin, end) when all of it waits in `state`; a part that waits in vain is an error.
inline bool release(int begin, int end, State state) {
  Machine& m = machine();
  int waiting = 0;
  for (int t = begin; t < end; ++t) waiting += m.fibers[t].state == state;
  if (waiting != end - begin) return false;
  for (int t = begin; t < end; ++t) m.fibers[t].state = State::ready;
  return true;
}

inline void run_block(int order) {
  Machine& m = machine();
  const int n = m.threads;
  m.votes[0] = m.votes[1] = 0;
  m.block_barriers = 0;
  for (Fiber& f : m.fibers) f.state = State::ready, f.exchanges = 0;
  for (;;) {
    bool progress = false;
    int done = 0;
    for (int i = 0; i < n; ++i) {
      const int t = order == 0 ? i : order == 1 ? n - 1 - i : int((int64_t(i) * 37 + 11) % n);
      if (m.fibers[t].state == State::ready) resume(t), progress = true;
      done += m.fibers[t].state == State::done;
    }
    if (done == n) return;
    for (int w = 0; w < n; w += kWarp)
      progress |= release(w, w + kWarp < n ? w + kWarp : n, State::at_warp_barrier);
    if (release(0, n, State::at_block_barrier)) {
      progress = true;
      m.votes[++m.block_barriers & 1] = 0;  // the buffer of the barrier after this one
    }
    if (!progress) fail("a barrier that not all threads reach");
  }
}

// order: 0 rising, 1 falling, 2 shuffled thread order between barriers. 37 is coprime to any block
// size that is not a multiple of 37.
template <typename Body>
void launch(dim3 grid, dim3 block, size_t shared_bytes, int order, Body body) {
  Machine& m = machine();
  m.grid_dim = grid;
  m.block_dim = block;
  m.threads = int(block.x * block.y * block.z);
  if (m.threads > kMaxThreads || m.threads % 37 == 0) fail("unsupported block size");
  m.body = body;
  if (int(m.fibers.size()) != m.threads) {
    m.fibers.assign(m.threads, Fiber{});
    m.stacks.resize(size_t(m.threads) * kStackBytes);
  }
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        m.block = dim3(x, y, z);
        m.shared.assign(shared_bytes + 16, 0xA5);  // never zero by luck
        run_block(order);
      }
}

// Every lane deposits a word and, after the warp has met, reads those of the others.
inline const uint64_t* exchange(uint64_t word) {
  Machine& m = machine();
  uint64_t* slots = m.slots[m.fibers[m.current].exchanges++ & 1];
  slots[m.current] = word;
  const int self = m.current;
  yield(State::at_warp_barrier);
  return slots + self / kWarp * kWarp;
}

template <typename T>
uint64_t to_word(T value) {
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}

template <typename T>
T from_word(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace emulation

#define threadIdx (::emulation::machine().thread)
#define blockIdx (::emulation::machine().block)
#define blockDim (::emulation::machine().block_dim)
#define gridDim (::emulation::machine().grid_dim)

inline int emulated_lane() {
  return emulation::machine().current % emulation::kWarp;
}
inline int emulated_warp_size() {
  const auto& m = emulation::machine();
  const int left = m.threads - m.current / emulation::kWarp * emulation::kWarp;
  return left < emulation::kWarp ? left : emulation::kWarp;
}

inline void __syncthreads() {
  emulation::yield(emulation::State::at_block_barrier);
}
inline int __syncthreads_count(int predicate) {
  auto& m = emulation::machine();
  int& votes = m.votes[m.block_barriers & 1];
  votes += predicate != 0;
  emulation::yield(emulation::State::at_block_barrier);
  return votes;
}
inline int __syncthreads_or(int predicate) {
  return __syncthreads_count(predicate) != 0;
}
inline int __syncthreads_and(int predicate) {
  return __syncthreads_count(predicate) == emulation::machine().threads;
}
inline void __syncwarp(unsigned = ~0u) {
  emulation::exchange(0);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  const int n = emulated_warp_size();
  const uint64_t* words = emulation::exchange(predicate != 0);
  unsigned bits = 0;
  for (int i = 0; i < n; ++i) bits |= unsigned(words[i]) << i;
  return bits;
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulation::from_word<T>(emulation::exchange(emulation::to_word(value))[lane & 31]);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  const int lane = emulated_lane();
  return emulation::from_word<T>(emulation::exchange(emulation::to_word(value))[lane ^ mask]);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  const int lane = emulated_lane(), from = lane - int(delta);
  return emulation::from_word<T>(
      emulation::exchange(emulation::to_word(value))[from < 0 ? lane : from]);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
  const int lane = emulated_lane(), from = lane + int(delta);
  return emulation::from_word<T>(
      emulation::exchange(emulation::to_word(value))[from < 32 ? from : lane]);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}
inline int __clz(int bits) {
  return bits ? __builtin_clz(unsigned(bits)) : 32;
}
inline unsigned atomicOr(unsigned* p, unsigned bits) {
  const unsigned old = *p;
  *p |= bits;
  return old;
}
inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}
template <typename T>
T __ldg(const T* p) {
  return *p;
}

namespace segroi {
inline unsigned char* dynamic_shared() {
  auto address = reinterpret_cast<uintptr_t>(emulation::machine().shared.data());
  return reinterpret_cast<unsigned char*>((address + 15) & ~uintptr_t(15));
}
}  // namespace segroi
