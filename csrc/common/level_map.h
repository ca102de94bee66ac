// Box -> pyramid level: eq. (1) of FPN (arXiv:1612.03144), by comparing areas. Torch-free.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace segroi {

// Level l serves boxes of area in [first_area * 4^(l-1), first_area * 4^l) px^2; the finest also
// all smaller ones, the coarsest all larger ones.
struct LevelMap {
  double first_area;  // area from which level 1 serves
  int levels;
};

// `finest` is log2 of the finest stride. floor(canonical_level + log2(sqrt(area) / canonical_size))
// reaches finest + 1 from the returned `first_area` on.
inline LevelMap make_level_map(int finest, int levels, double canonical_size, int canonical_level) {
  double side = canonical_size;
  for (int l = canonical_level; l < finest + 1; ++l) side *= 2;
  for (int l = canonical_level; l > finest + 1; --l) side /= 2;
  return {side * side, levels};
}

// Index of the level of a box in px; a box without area (or with a NaN) belongs to the finest.
template <typename T>
SEGROI_HD int box_level(const LevelMap& map, T x0, T y0, T x1, T y1) {
  const T w = x1 - x0, h = y1 - y0;
  if (!(w > 0 && h > 0)) return 0;
  const double area = static_cast<double>(mul_rn(w, h));
  double from = map.first_area;
  int level = 0;
  while (level + 1 < map.levels && area >= from) {
    ++level;
    from *= 4;
  }
  return level;
}

}  // namespace segroi
