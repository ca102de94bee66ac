// Integer crops on the device. A map is read as planes of lines: NCHW has C planes whose lines are
// W elements long, NHWC one plane whose lines are W * C long (there a Unit is up to 16 bytes).
#pragma once

#include <cstdint>

#include "common/encompass.h"

namespace segroi {

constexpr int kCropThreads = 256;
constexpr int kCropGroups = 64;  // pairs of (stack, map) in one launch
constexpr int kGradItems = 4;    // elements of a map that one thread sums

// The boxes, and how rows name them.
struct CropBoxes {
  const int64_t* cells;
  const int64_t* image;
  const int64_t* source;   // box of each row; null in the packed form, where row k shows box k
  const int64_t* offsets;  // first cell of each box in the packed form
  int64_t count;
  CropGrid grid;
  int64_t* error;  // where a wrong box is reported, or null
  int64_t error_word;
};

// One stack of crops of one map. Strides and sizes in units.
struct CropGroup {
  const void* map;
  void* out;
  int64_t image_stride, plane_stride, line_stride;  // of the map
  int64_t planes, pixel;                            // pixel: units that one pixel has in a line
  int64_t factor, h, w;                             // h, w in cells; 0 in the packed form
  int64_t rows, first_row, first_job;
  int64_t packed_plane;  // distance of planes in the packed form
};

struct CropGroups {
  CropGroup group[kCropGroups];
  int count;
};

// Where a row of a group lies in the stack, in units.
struct CropPlace {
  int64_t base, plane, line;  // first unit; distance of planes and of lines
  int64_t lines;              // to write in each plane
};

SEGROI_HD CropPlace crop_place(const CropGroup& g, const CropBoxes& boxes, int64_t row,
                               const CropWindow& window) {
  const bool packed = boxes.source == nullptr;
  const int64_t h = (packed ? window.h : g.h) * g.factor, w = (packed ? window.w : g.w) * g.factor;
  const int64_t line = w * g.pixel;
  if (packed) {
    return {boxes.offsets[row] * g.factor * g.factor * g.pixel, g.packed_plane, line, h};
  }
  return {row * g.planes * h * line, h * line, line, h};
}

// The box that a row shows, checked; an empty window for none.
SEGROI_HD CropWindow place_window(const CropGroup& g, const CropBoxes& boxes, int64_t row,
                                  bool report) {
  CropWindow window = {0, 0, 0, 0, 0};
  const int64_t box = boxes.source == nullptr ? row : boxes.source[g.first_row + row];
  if (box < 0 || box >= boxes.count) return window;
  const bool packed = boxes.source == nullptr;
  const int64_t max_h = packed ? boxes.grid.h : g.h, max_w = packed ? boxes.grid.w : g.w;
  const CropError error =
      crop_window(boxes.cells + 4 * box, boxes.image[box], boxes.grid, max_h, max_w, &window);
  if (report && error != CropError::none && boxes.error != nullptr) {
    *boxes.error = boxes.error_word | box;
  }
  return window;
}

template <typename Unit, int kPack>
struct alignas(sizeof(Unit) * kPack) UnitPack {
  Unit unit[kPack];
};

// Writes one row: a thread writes kPack units at a time. Grid: (rows of all groups, chunks).
template <typename Unit, int kPack>
__global__ void __launch_bounds__(kCropThreads)
    encompass_crop_kernel(const __grid_constant__ CropGroups groups, const CropBoxes boxes) {
  int index = 0;
  while (index + 1 < groups.count && groups.group[index + 1].first_job <= blockIdx.x) ++index;
  const CropGroup& g = groups.group[index];
  const int64_t row = blockIdx.x - g.first_job;
  const CropWindow window = place_window(g, boxes, row, threadIdx.x == 0 && blockIdx.y == 0);
  const CropPlace place = crop_place(g, boxes, row, window);

  const uint32_t line = place.line, plane = place.lines * place.line;
  const uint32_t valid_lines = window.h * g.factor, valid = window.w * g.factor * g.pixel;
  const int64_t first = window.image * g.image_stride + window.y * g.factor * g.line_stride +
                        window.x * g.factor * g.pixel;
  const Unit* map = static_cast<const Unit*>(g.map) + first;
  Unit* out = static_cast<Unit*>(g.out) + place.base;
  const uint32_t total = g.planes * plane, step = gridDim.y * kCropThreads * kPack;
  for (uint32_t i = (blockIdx.y * kCropThreads + threadIdx.x) * kPack; i < total; i += step) {
    uint32_t p = i / plane, y = i % plane / line, x = i % line;
    const int64_t to = p * place.plane + (i - p * plane);
    UnitPack<Unit, kPack> pack;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      pack.unit[k] = Unit{};
      if (y < valid_lines && x < valid)
        pack.unit[k] = map[p * g.plane_stride + y * g.line_stride + x];
      if (++x == line) {
        x = 0;
        if (++y == place.lines) y = 0, ++p;
      }
    }
    *reinterpret_cast<UnitPack<Unit, kPack>*>(out + to) = pack;
  }
}

// A row of a stack that shows some pixels of a line of cells.
template <typename scalar_t>
struct CropHit {
  const scalar_t* grad;  // of the first of those lines, at the left end of the map
  int64_t plane, line;
  int32_t begin, end;  // units of the line
};

// The rows that show cell row `y` of an image, `kCropThreads` of them at a time, in order.
template <typename scalar_t>
__device__ int collect_hits(const CropGroup& g, const CropBoxes& boxes, int64_t row, int64_t image,
                            int64_t y, CropHit<scalar_t>* hits, int* warp_hits) {
  CropWindow window = {0, 0, 0, 0, 0};
  if (row < g.rows) window = place_window(g, boxes, row, false);
  const bool hit = window.image == image && window.y <= y && y < window.y + window.h;
  const unsigned votes = __ballot_sync(~0u, hit);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) warp_hits[warp] = __popc(votes);
  __syncthreads();
  int before = 0, total = 0;
  for (int w = 0; w < kCropThreads / 32; ++w) {
    before += w < warp ? warp_hits[w] : 0;
    total += warp_hits[w];
  }
  if (hit) {
    const CropPlace place = crop_place(g, boxes, row, window);
    const int64_t begin = window.x * g.factor * g.pixel;
    const int64_t first = place.base + (y - window.y) * g.factor * place.line - begin;
    hits[before + __popc(votes & ((1u << lane) - 1))] = {
        static_cast<const scalar_t*>(g.out) + first, place.plane, place.line,
        static_cast<int32_t>(begin), static_cast<int32_t>(begin + window.w * g.factor * g.pixel)};
  }
  __syncthreads();
  return total;
}

// Gradients of the maps: every element is the sum over the rows that show it, in order. Here g.out
// is the gradient of a stack and g.map that of the map; the groups of a map stand together. Grid:
// (images * cell rows, chunks, maps).
template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kCropThreads)
    encompass_crop_grad_kernel(const __grid_constant__ CropGroups groups, const CropBoxes boxes) {
  __shared__ CropHit<scalar_t> hits[kCropThreads];
  __shared__ int warp_hits[kCropThreads / 32];
  const int stacks = groups.count / gridDim.z, first_group = blockIdx.z * stacks;
  const CropGroup& first = groups.group[first_group];
  const int64_t image = blockIdx.x / boxes.grid.h, cell_row = blockIdx.x % boxes.grid.h;
  const int64_t line = boxes.grid.w * first.factor * first.pixel;
  const int64_t band = first.factor * line, total = first.planes * band;
  const int64_t start = int64_t{blockIdx.y} * kCropThreads * kGradItems + threadIdx.x;
  acc_t sum[kGradItems] = {};
  for (int s = 0; s < stacks; ++s) {
    const CropGroup& g = groups.group[first_group + s];
    for (int64_t base = 0; base < g.rows; base += kCropThreads) {
      const int n = collect_hits(g, boxes, base + threadIdx.x, image, cell_row, hits, warp_hits);
#pragma unroll
      for (int k = 0; k < kGradItems; ++k) {
        const int64_t i = start + k * kCropThreads;
        if (i >= total) break;
        const int64_t p = i / band, y = i % band / line, x = i % line;
        for (int h = 0; h < n; ++h) {
          const CropHit<scalar_t>& hit = hits[h];
          if (hit.begin <= x && x < hit.end) {
            sum[k] += static_cast<acc_t>(hit.grad[p * hit.plane + y * hit.line + x]);
          }
        }
      }
      __syncthreads();  // before the list is written again
    }
  }
  scalar_t* map = static_cast<scalar_t*>(const_cast<void*>(first.map)) +
                  image * first.image_stride + cell_row * first.factor * first.line_stride;
#pragma unroll
  for (int k = 0; k < kGradItems; ++k) {
    const int64_t i = start + k * kCropThreads;
    if (i >= total) break;
    map[i / band * first.plane_stride + i % band / line * first.line_stride + i % line] =
        static_cast<scalar_t>(sum[k]);
  }
}

template <typename T>
__global__ void encompassing_boxes_kernel(const T* boxes, int64_t count, double image_h,
                                          double image_w, int64_t grid_h, int64_t grid_w,
                                          int64_t* cells, int64_t* error, int64_t error_word) {
  const int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (k >= count) return;
  const T* b = boxes + 4 * k;
  int64_t* c = cells + 4 * k;
  bool finite = true;
  for (int i = 0; i < 4; ++i) finite = finite && b[i] - b[i] == 0;
  if (!finite) {
    for (int i = 0; i < 4; ++i) c[i] = 0;
    if (error != nullptr) *error = error_word | k;
    return;
  }
  const CellSpan x = encompass_span(b[0], b[2], image_w, grid_w);
  const CellSpan y = encompass_span(b[1], b[3], image_h, grid_h);
  c[0] = x.begin, c[1] = y.begin, c[2] = x.end, c[3] = y.end;
}

// First row and number of rows of each stack.
struct StackRows {
  int64_t first[kCropGroups + 1];
  int count;
};

// Row of each box: how many boxes before it go to the same stack.
__global__ void stack_rows_kernel(const int64_t* branch, int64_t count, const StackRows stacks,
                                  int64_t* source, int64_t* error, int64_t error_word) {
  const int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (k >= count || branch[k] == -1) return;
  const int64_t s = branch[k];
  bool fits = s >= 0 && s < stacks.count;
  if (fits) {
    int64_t row = stacks.first[s];
    for (int64_t j = 0; j < k; ++j) row += branch[j] == s;
    fits = row < stacks.first[s + 1];
    if (fits) source[row] = k;
  }
  if (!fits && error != nullptr) *error = error_word | k;
}

}  // namespace segroi
