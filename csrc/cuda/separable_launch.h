// How separable sampling is divided into blocks: which kernel, how many blocks, how much shared
// memory. Torch-free host code.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/separable.h"

namespace segroi::cuda {

enum class Layout : int {
  vector,         // channels last, 16 bytes a lane
  channels_last,  // channels last, any alignment and channel count
  strided         // any strides, meant for NCHW
};

struct LaunchShape {
  int64_t blocks;
  int threads;
  int shared_bytes;
};

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

inline bool multiples_of(int v, int element, const void* data,
                         std::initializer_list<int64_t> strides) {
  bool fine = reinterpret_cast<uintptr_t>(data) % (v * element) == 0;
  for (int64_t s : strides) fine &= s % v == 0;
  return fine;
}

inline bool vector_crops(const SeparableArgs& a, int v, int element) {
  const int64_t extent = a.bins[0] * a.crop_stride.y + a.bins[1] * a.crop_stride.x;
  return a.channels % v == 0 && a.crop_stride.c == 1 && extent < int64_t{1} << 31 &&
         multiples_of(v, element, a.crops,
                      {a.crop_stride_k, a.crop_stride_slot, a.crop_stride.y, a.crop_stride.x});
}

inline bool vector_maps(const SeparableArgs& a, int v, int element) {
  bool vector = a.channels % v == 0;
  for (int l = 0; l < a.levels; ++l) {
    const Strides& s = a.maps[l].stride;
    vector &= s.c == 1 && multiples_of(v, element, a.maps[l].data, {s.n, s.y, s.x});
  }
  return vector;
}

// The forward kernel for these strides; `v` elements make one access of the vector kernel.
inline Layout choose_layout(const SeparableArgs& a, int v, int element) {
  bool last = a.channels > 1;
  for (int l = 0; l < a.levels; ++l) last &= a.maps[l].stride.c == 1;
  if (!last) return Layout::strided;
  return vector_crops(a, v, element) && vector_maps(a, v, element) ? Layout::vector
                                                                   : Layout::channels_last;
}

inline void divide_bins(SeparableArgs* a) {
  for (int d = 0; d < 2; ++d) {
    a->tile_bins[d] = static_cast<int>(ceil_div(a->bins[d], ceil_div(a->bins[d], kTileBins)));
    a->tiles[d] = static_cast<int>(ceil_div(a->bins[d], a->tile_bins[d]));
  }
}

// Bytes of the tap lists of one tile: an axis has at most its pixels plus three a bin, since
// neighbouring bins share at most two, and at most two a sample.
inline int table_bytes(const SeparableArgs& a, bool summed, int tap_bytes, int coordinate_bytes) {
  int64_t taps = 0;
  for (int l = 0; l < a.levels; ++l) {
    int64_t here = 0;
    for (int d = 0; d < 2; ++d) {
      const int64_t dense = int64_t{a.maps[l].length[d]} + 3 * a.tile_bins[d];
      const int per_bin = a.coordinates == Coordinates::roi_align ? a.samples[d] : a.pool;
      here += per_bin > 0 ? std::min<int64_t>(dense, int64_t{2} * per_bin * a.tile_bins[d]) : dense;
    }
    taps = summed ? taps + here : std::max(taps, here);
  }
  const int items = (summed ? a.levels : 1) * (a.tile_bins[0] + a.tile_bins[1]);
  const int head = (items * coordinate_bytes + (items + 1) * 4 + 15) / 16 * 16;
  return head + static_cast<int>(std::min<int64_t>(taps * tap_bytes, kTapBytes) + 15) / 16 * 16;
}

// `coordinate`: bytes of the accumulator (4 or 8); taps are twice that.
inline LaunchShape divide_forward(SeparableArgs* a, Layout layout, int v, int coordinate,
                                  int multiprocessors) {
  divide_bins(a);
  a->chunk_channels = layout == Layout::strided  ? kStridedChannels
                      : layout == Layout::vector ? 32 * v
                                                 : 32;
  const auto blocks = [&] {
    a->tiles[0] = static_cast<int>(ceil_div(a->bins[0], a->tile_bins[0]));
    a->channel_chunks = ceil_div(a->channels, a->chunk_channels);
    const int64_t each = a->rois * a->slots * a->tiles[0] * a->tiles[1];
    a->chunk_blocks = static_cast<unsigned>(each);
    return each * a->channel_chunks;
  };
  // every multiprocessor should have work; where a RoI reads all levels, its work grows with its
  // area, so smaller pieces are shared out more evenly
  const int64_t times = layout == Layout::strided ? 2 : 1;  // it waits more at barriers
  const int64_t enough = times * (a->all_levels ? kBlocksEach : 4) * multiprocessors;
  while (layout == Layout::strided && blocks() < enough && a->chunk_channels > 8) {
    a->chunk_channels /= 2;
  }
  while (blocks() < enough && a->tile_bins[0] > 2) a->tile_bins[0] = (a->tile_bins[0] + 1) / 2;
  a->shared_bytes = table_bytes(*a, a->all_levels && a->slots == 1, 2 * coordinate, coordinate);
  a->sums_bytes =
      layout == Layout::strided ? std::min(kSumsBytes, kForwardBytes - a->shared_bytes) : 0;
  return {blocks(), kBlockThreads, a->shared_bytes + a->sums_bytes};
}

inline LaunchShape divide_boxes(SeparableArgs* a, int coordinate) {
  divide_bins(a);
  a->shared_bytes = table_bytes(*a, false, 4 * coordinate, coordinate);
  return {a->rois, kBlockThreads, a->shared_bytes};
}

// Whether the gather reads a copy of the crops, and how the plan's blocks divide it; `v` channels
// are read at once.
inline CropCopy divide_copy(const SeparableArgs& a, int v, int element) {
  CropCopy copy{};
  if (vector_crops(a, v, element)) return copy;
  copy.pitch = ceil_div(a.channels, v) * v;
  copy.channels = element > 4 ? 64 : 128;
  copy.channel_blocks = static_cast<unsigned>(ceil_div(copy.pitch, copy.channels));
  copy.bin_blocks = static_cast<unsigned>(ceil_div(int64_t{a.bins[0]} * a.bins[1], kCopyBins));
  copy.blocks = a.rois * a.slots * copy.channel_blocks * copy.bin_blocks;
  return copy;
}

inline LaunchShape divide_plan(const SeparableArgs& a, const CropCopy& copy, int element) {
  const int shared = copy.blocks > 0 ? copy.channels * (kCopyBins + 1) * element : 0;
  return {a.images * a.levels + copy.blocks, kPlanThreads, shared};
}

inline LaunchShape divide_backward(SeparableArgs* a, const CropCopy& copy, int v, int element,
                                   int coordinate) {
  a->vector_maps = vector_maps(*a, v, element);
  if (copy.blocks > 0) {
    a->crops = copy.data;
    a->crop_stride = {0, 1, a->bins[1] * copy.pitch, copy.pitch};
    a->crop_stride_slot = a->bins[0] * a->crop_stride.y;
    a->crop_stride_k = a->slots * a->crop_stride_slot;
  }
  a->chunk_channels = 32 * v;
  a->channel_chunks = ceil_div(a->channels, a->chunk_channels);
  a->map_tiles[0] = 0;
  for (int l = 0; l < a->levels; ++l) {
    const int64_t tiles = ceil_div(a->maps[l].length[0], kMapTileRows) *
                          ceil_div(a->maps[l].length[1], kMapTileColumns);
    a->map_tiles[l + 1] = static_cast<unsigned>(a->map_tiles[l] + tiles);
  }
  a->shared_bytes = kWeightBytes;
  const int turned = a->vector_maps ? 0 : kBlockThreads * (kMapTileColumns + 1) * coordinate;
  return {a->images * a->map_tiles[a->levels] * a->channel_chunks, kBlockThreads,
          std::max(kWeightBytes, turned)};
}

}  // namespace segroi::cuda
