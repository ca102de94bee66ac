// The samples of one axis of one RoI, merged into a small sparse matrix. Torch-free.
//
// bin value = sum over pixels of weight * pixel value, where the weights of all samples of a bin
// that read a pixel are added up and divided by the number of samples. Tables are built once per
// RoI and map, and used for every channel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/axis_taps.h"

namespace segroi::cpu {

// Entries [begin[i], begin[i + 1]) belong to output i. Forward, bins are the outputs and pixels the
// inputs; backward it is the other way round.
template <typename T>
struct Taps {
  int outputs = 0, inputs = 0;
  const int* begin = nullptr;
  const int* input = nullptr;
  const T* weight = nullptr;
};

// The same matrix for vectors of `width` outputs: in a step every lane picks one of 2 width - 1
// inputs from `base` on, or the lane that is kept zero, and multiplies it by its own weight.
struct LaneSegment {
  int block;  // of `width` outputs
  int base, steps;
};
template <typename T>
struct Lanes {
  const LaneSegment* segments = nullptr;
  int count = 0;
  const uint8_t* index = nullptr;  // [steps][width]
  const T* weight = nullptr;       // [steps][width]
};

template <typename T>
struct AxisTable {
  int bins = 0, pixels = 0;
  const int* pixel = nullptr;  // [pixels] positions on the map, rising
  const T* share = nullptr;    // [bins] part of the samples that lie on the map
  Taps<T> taps;
  Lanes<T> lanes;
};

// Memory for tables; all of it goes at once.
class Arena {
 public:
  template <typename U>
  U* take(size_t n) {
    return static_cast<U*>(allocate(n * sizeof(U)));
  }

 private:
  void* allocate(size_t bytes);
  std::vector<std::unique_ptr<char[]>> chunks_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

enum class Weights { value, d_start, d_end };  // of a bin, or their derivative by an end of the box

struct TableForm {
  Weights weights = Weights::value;
  bool transposed = false;  // pixels are the outputs
  bool span = false;        // list every pixel between the first and the last that is read
  int width = 0;            // lanes to build for; 0: none
};

// Builds one table after the other. It keeps its buffers: a table takes about as long as an
// allocation.
template <typename T>
class TableBuilder {
 public:
  AxisTable<T> build(const AxisSampler<T>& axis, const TableForm& form, Arena& arena);

 private:
  void merge(const AxisSampler<T>& axis, Weights weights);
  void add_tap(size_t first, int pixel, T weight);
  void list_pixels(const TableForm& form, AxisTable<T>& table, Arena& arena);
  Taps<T> by_bin(int bins, int pixels, Arena& arena);
  Taps<T> by_pixel(int bins, int pixels, Arena& arena);
  Lanes<T> lanes_of(const Taps<T>& taps, int width, Arena& arena);
  void add_block(const Taps<T>& taps, int width, int block);
  int add_segment(const Taps<T>& taps, int width, int first, int lanes, int base);

  std::vector<int> begin_, pixel_;  // taps of all bins: positions on the map, then in the list
  std::vector<T> weight_, share_;
  std::vector<int> slot_, next_;
  std::vector<LaneSegment> segments_;
  std::vector<uint8_t> index_;
  std::vector<T> factor_;
};

}  // namespace segroi::cpu
