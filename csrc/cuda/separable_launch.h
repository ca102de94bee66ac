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

// The kernel for these strides; `v` elements make one access of the vector kernel.
inline Layout choose_layout(const SeparableArgs& a, int v, int element) {
  bool last = a.channels > 1, vector = a.channels % v == 0 && a.crop_stride.c == 1;
  vector &= multiples_of(v, element, a.crops,
                         {a.crop_stride_k, a.crop_stride_slot, a.crop_stride.y, a.crop_stride.x});
  for (int l = 0; l < a.levels; ++l) {
    const Strides& s = a.maps[l].stride;
    last &= s.c == 1;
    vector &= multiples_of(v, element, a.maps[l].data, {s.n, s.y, s.x});
  }
  return !last ? Layout::strided : vector ? Layout::vector : Layout::channels_last;
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
    return a->rois * a->slots * a->tiles[0] * a->tiles[1] * a->channel_chunks;
  };
  // few RoIs: smaller pieces, so that every multiprocessor has work
  while (layout == Layout::strided && blocks() < 4 * multiprocessors && a->chunk_channels > 8) {
    a->chunk_channels /= 2;
  }
  while (blocks() < 4 * multiprocessors && a->tile_bins[0] > 2) {
    a->tile_bins[0] = (a->tile_bins[0] + 1) / 2;
  }
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

inline LaunchShape divide_plan(const SeparableArgs& a) {
  return {a.images * a.levels, kPlanThreads, 0};
}

inline LaunchShape divide_backward(SeparableArgs* a, Layout layout, int v, int coordinate) {
  const bool strided = layout == Layout::strided;
  a->chunk_channels = strided ? kGatherChannels : layout == Layout::vector ? 32 * v : 32;
  a->channel_chunks = ceil_div(a->channels, a->chunk_channels);
  a->map_tiles[0] = 0;
  for (int l = 0; l < a->levels; ++l) {
    const int64_t tiles = ceil_div(a->maps[l].length[0], kMapTileRows) *
                          ceil_div(a->maps[l].length[1], kMapTileColumns[strided]);
    a->map_tiles[l + 1] = static_cast<unsigned>(a->map_tiles[l] + tiles);
  }
  a->shared_bytes = kWeightBytes;
  const int scratch = strided ? kMapTileRows * kMaskBins * kGatherChannels * coordinate : 0;
  return {a->images * a->map_tiles[a->levels] * a->channel_chunks, kBlockThreads,
          scratch + kWeightBytes};
}

}  // namespace segroi::cuda
