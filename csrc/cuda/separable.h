// One launch of separable sampling (multi_level_roi_align, crop_and_resize) as its kernels see it,
// and the host functions that launch. Torch-free; passed by value, so that a launch needs no copy.
#pragma once

#include <cstdint>

#include "common/axis_taps.h"
#include "common/level_map.h"
#include "cuda/device_errors.h"

namespace segroi::cuda {

constexpr int kMaxLevels = 16;  // maps of one launch

// Division of work.
constexpr int kBlockThreads = 256, kPlanThreads = 512;
// Blocks resident on a multiprocessor, at least.
constexpr int kForwardBlocks = 4, kGatherBlocks = 3;
constexpr int kTileBins = 32;         // bins of a block's tile along one axis, at most
constexpr int kTapBytes = 16 << 10;   // shared memory for tap lists, at most
constexpr int kSumsBytes = 40 << 10;  // shared memory for sums and crops (strided forward), at most
constexpr int kForwardBytes = 44 << 10;  // both: 48 KB less what kernels declare
constexpr int kStridedChannels = 64;     // channels of a block of the strided forward, at most
constexpr int kBlocksEach = 16;          // blocks that a multiprocessor should get, for balance
constexpr int kWeightBytes = 12 << 10;  // shared memory for the weights of a batch of RoIs (gather)
constexpr int kMapTileRows = 8;         // rows of a map that a block of the gather owns, one a warp
constexpr int kMapTileColumns = 8;
constexpr int kMaskBins = 32;  // bins whose weights it holds at a time along one axis
constexpr int kScan = 4;       // windows that a thread of it looks at in one go
constexpr int kCopyBins = 64;  // of a block that copies crops for it

struct Strides {
  int64_t n, c, y, x;  // elements
};

// A batch of maps of one level: features, or their gradient.
struct MapView {
  void* data;
  Strides stride;
  int length[2];  // rows, columns
  double scale;   // pixels per unit of the boxes

  template <typename T>
  SEGROI_HD T* at(int64_t image, int64_t channel) const {
    return static_cast<T*>(data) + image * stride.n + channel * stride.c;
  }
};

enum class DType : int { f64, f32, f16, bf16 };
enum class Coordinates : int { roi_align, crop_pixels, crop_normalized };

struct SeparableArgs {
  MapView maps[kMaxLevels];
  int levels;
  int64_t images, channels, rois;

  // RoIs: rows of T (double beside double maps, else float).
  const void* boxes;
  int64_t box_stride, box_column_stride;
  int box_column[4];  // of y start, x start, y end, x end
  int image_column;   // in boxes, or -1: then in image_index
  const void* image_index;
  const void* level_index;                   // of each RoI, or null: by LevelMap
  int image_index_bytes, level_index_bytes;  // signed, but 0 is one unsigned byte
  int64_t image_index_stride, level_index_stride;
  LevelMap level_map;

  // Sampling.
  Coordinates coordinates;
  int bins[2], samples[2];  // samples: sampling_ratio of roi_align, crop size before pooling
  int pool;
  bool aligned, nearest;
  double extrapolation;  // 0 unless crop_and_resize asks for another

  // Result (forward) or its gradient: crop k, slot s (a level of a stack), channel, row, column.
  void* crops;
  int64_t crop_stride_k, crop_stride_slot;
  Strides crop_stride;  // n unused
  int slots;            // 1, or the levels
  bool all_levels;      // every RoI reads every level: summed (slots 1) or side by side
  void* grad_boxes;     // contiguous [rois, box_columns] of T
  int box_columns;

  // Where a wrong value is noted; null: nowhere.
  int64_t* error_flag;
  OpCode op;

  // Division of work, filled in by the launch functions.
  int tile_bins[2], tiles[2];
  int64_t chunk_channels, channel_chunks;
  unsigned chunk_blocks;  // blocks of one chunk of channels (forward)
  unsigned map_tiles[kMaxLevels + 1];
  int shared_bytes, sums_bytes;
  bool vector_maps;  // the gather stores several channels at once
};

// What separable_plan leaves for separable_backward_*: for list (image, level) the RoIs
// [begin[2 i], begin[2 i + 1]) of `rois` and `windows`.
struct alignas(16) Window {
  int first[2], last[2];  // rows and columns of the map that a RoI may read
};
struct WindowLists {
  Window* windows;  // [rois * (all_levels ? levels : 1)]
  int* rois;        // the same
  int64_t* begin;   // [2 * images * levels]
};

// A channels-last copy [rois, slots, bins, pitch] of the crops for the gather; no blocks: none.
struct CropCopy {
  void* data;
  int64_t pitch, blocks;
  int channels;  // of one block
  unsigned channel_blocks, bin_blocks;
};

}  // namespace segroi::cuda
