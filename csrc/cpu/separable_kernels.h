// What separable.cpp asks of the kernels of one instruction set. Torch-free.
#pragma once

#include <cstdint>

#include "cpu/axis_table.h"

namespace segroi::cpu {

enum class Element : int { f64, f32, f16, bf16 };

struct Strides {
  int64_t n, c, y, x;  // elements
};

// Buffers of one thread. `get` keeps the memory of a slot until the next call for that slot.
class Scratch {
 public:
  enum Slot { kRows, kCrop, kWindow, kTile, kSlots };
  template <typename U>
  U* get(Slot slot, int64_t n) {
    const int64_t bytes = n * static_cast<int64_t>(sizeof(U));
    if (bytes > bytes_[slot]) grow(slot, bytes);
    return static_cast<U*>(memory_[slot]);
  }
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch();

 private:
  void grow(Slot slot, int64_t bytes);  // aligned to 64 bytes
  void* memory_[kSlots] = {};
  int64_t bytes_[kSlots] = {};
};

// A source with its tables; `data` is the image it reads.
template <typename T>
struct Pooled {
  AxisTable<T> y, x;
  const void* data;
  Strides stride;
};

template <typename T>
struct CropTask {
  const Pooled<T>* sources;
  int count;
  void* crop;
  Strides crop_stride;
  int bins_h, bins_w;
  int64_t channel, channels;  // the range to fill
  double extrapolation;
  bool stream;  // write past the caches
};

// Whether a source's window of all channels is too large for the second-level cache: crops with one
// are for crop_tiles.
constexpr int64_t kWideValues = 256 << 10;
template <typename T>
bool is_wide(const Pooled<T>& source, int64_t channels) {
  return int64_t{source.y.pixels} * source.x.pixels * channels > kWideValues;
}

// Rows [row, row + rows) of channels [channel, channel + channels) of one gradient map.
template <typename T>
struct TileTask {
  void* data;  // of the image
  Strides stride;
  int width, row, rows;
  int64_t channel, channels;
  const Pooled<T>* const* sources;  // that reach this map, in the order to add them
  const void* const* crops;         // gradient of each one's crop
  int64_t count;
  Strides crop_stride;
  bool accumulate;  // on top of what is there
};

template <typename T>
struct Kernels {
  int width;  // of the lanes to build
  void (*crop_planar)(const CropTask<T>&, Scratch&);
  void (*crop_interleaved)(const CropTask<T>&, Scratch&);
  void (*crop_tiles)(const CropTask<T>* tasks, int64_t count, Scratch&);  // interleaved, wide
  void (*tile_planar)(const TileTask<T>&, Scratch&);
  void (*tile_interleaved)(const TileTask<T>&, Scratch&);
};

Kernels<float> kernels_avx512(Element element);
Kernels<float> kernels_avx2(Element element);
Kernels<float> kernels_baseline(Element element);
Kernels<double> kernels_double();

}  // namespace segroi::cpu
