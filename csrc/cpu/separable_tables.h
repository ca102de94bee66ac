// A Separable problem as the kernels see it, and the tables of its sources.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <functional>
#include <vector>

#include "cpu/separable.h"
#include "cpu/separable_kernels.h"

namespace segroi::cpu {

struct Map {
  char* data;
  Strides stride;
  int64_t images;
  int height, width;
};

template <typename T>
struct Problem {
  const std::vector<Source<T>>& sources;  // `per` of each crop
  Element element;                        // of maps and crops
  int element_bytes;
  std::vector<Map> maps;
  int64_t channels, slots, count;  // count: rois * slots crops
  int per, bins_h, bins_w;
  char* crops;  // or their gradient
  int64_t crop_stride, slot_stride;
  Strides stride;  // within a crop, n unused
  double fill;
  bool planar;  // vectors along rows, else along channels
  Weights weights_y = Weights::value, weights_x = Weights::value;

  // `crops` is [rois, slots, C, h, w].
  Problem(const Separable<T>& from, const std::vector<at::Tensor>& tensors,
          const at::Tensor& crops);

  void* crop(int64_t i) const {
    return crops + (i / slots * crop_stride + i % slots * slot_stride) * element_bytes;
  }
  // Sources that crop i reads: none where its RoI is wrong.
  int reads(int64_t i) const { return sources[i * per].image < 0 ? 0 : per; }
};

// The tables of consecutive crops in reading order: a bounded part of the problem.
template <typename T>
struct Wave {
  std::vector<int64_t> crops;
  std::vector<Pooled<T>> tables;  // `per` of each crop
  std::vector<Arena> arenas;
};

// run(wave) for all crops, ordered by image, map and row: neighbours read the same rows.
template <typename T>
void for_each_wave(const Problem<T>& problem, bool backward, int width,
                   const std::function<void(const Wave<T>&)>& run);

// run(task, scratch) for all tasks on all threads, whoever is free; they start in rising order.
template <typename Run>
void for_each_task(int64_t tasks, const Run& run) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), tasks);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t i = next++; i < tasks; i = next++) run(i, scratch);
    }
  });
}

// The best kernels of this machine; SEGROI_ISA=baseline|avx2 asks for less, which the tests use.
template <typename T>
Kernels<T> choose_kernels(Element element);

}  // namespace segroi::cpu
