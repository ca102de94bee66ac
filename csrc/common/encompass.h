// Box -> integer cells, and which pixels of a map a crop shows. Torch-free.
//
// A cell is one pixel of the base grid; a map of factor f has f x f pixels in each cell.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace segroi {

// A corner this close to a grid line (in cells) lies on it.
constexpr double kGridTolerance = 1e-6;

// Half-open range of cells along one axis.
struct CellSpan {
  int64_t begin, end;
};

// The smallest span that contains [low, high] px: at least one cell, inside [0, grid]. Finite
// input. Double precision, and no product beside a sum: host and device agree on every integer.
SEGROI_HD CellSpan encompass_span(double low, double high, double image, int64_t grid) {
  const double last = static_cast<double>(grid - 1);
  const double first = floor(low * grid / image + kGridTolerance);
  const double stop = ceil(high * grid / image - kGridTolerance);
  const double begin = first < 0 ? 0 : (first > last ? last : first);  // clipped before the cast
  const double end = stop < begin + 1 ? begin + 1 : (stop > grid ? grid : stop);
  return {static_cast<int64_t>(begin), static_cast<int64_t>(end)};
}

// What the cells refer to: the number of images and the base grid.
struct CropGrid {
  int64_t images, h, w;
};

// One checked box, in cells; h == 0 where there is nothing to show.
struct CropWindow {
  int64_t image, y, x, h, w;
};

enum class CropError : int { none = 0, image, cells, shape };

// Window of `cells` (x0, y0, x1, y1), which must lie in the grid and fit max_h x max_w.
SEGROI_HD CropError crop_window(const int64_t* cells, int64_t image, const CropGrid& grid,
                                int64_t max_h, int64_t max_w, CropWindow* window) {
  *window = {0, 0, 0, 0, 0};
  if (!(image >= 0 && image < grid.images)) return CropError::image;
  const int64_t x0 = cells[0], y0 = cells[1], x1 = cells[2], y1 = cells[3];
  // compared before anything is subtracted: a cell may be any 64-bit integer
  if (!(0 <= x0 && x0 < x1 && x1 <= grid.w)) return CropError::cells;
  if (!(0 <= y0 && y0 < y1 && y1 <= grid.h)) return CropError::cells;
  if (y1 - y0 > max_h || x1 - x0 > max_w) return CropError::shape;
  *window = {image, y0, x0, y1 - y0, x1 - x0};
  return CropError::none;
}

}  // namespace segroi
