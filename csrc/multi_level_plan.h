// Options of multi_level_roi_align, read and checked once for CPU and CUDA.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "checks.h"
#include "common/level_map.h"

namespace segroi {

struct MultiLevelPlan {
  int bins_h, bins_w, levels, sampling_ratio;
  int64_t slots;  // outputs [C, h, w] of a RoI
  bool aligned, select, stack, zero_invalid;
  LevelMap level_map;
};

inline MultiLevelPlan make_plan(at::TensorList features, at::IntArrayRef output_size,
                                at::ArrayRef<double> spatial_scales, int64_t sampling_ratio,
                                bool aligned, c10::string_view reduce, int64_t finest_level,
                                double canonical_size, int64_t canonical_level,
                                c10::string_view on_invalid) {
  const char* op = "multi_level_roi_align";
  SEGROI_CHECK(op, !features.empty(), "features", "at least one map", features.size());
  SEGROI_CHECK(op, spatial_scales.size() == features.size(), "spatial_scales", "one per map",
               spatial_scales.size());
  SEGROI_CHECK(op, output_size.size() == 2 && output_size[0] > 0 && output_size[1] > 0,
               "output_size", "two positive numbers", output_size);
  for (const at::Tensor& map : features) {
    SEGROI_CHECK(op,
                 map.dim() == 4 && map.size(0) == features[0].size(0) &&
                     map.size(1) == features[0].size(1) && map.size(2) > 0 && map.size(3) > 0,
                 "features", "Tensor[N, C, H, W] of one N and C", describe(map));
  }
  const int levels = static_cast<int>(features.size());
  const bool stack = reduce == "stack", apart = stack || reduce == "concat";
  return {static_cast<int>(output_size[0]),
          static_cast<int>(output_size[1]),
          levels,
          static_cast<int>(sampling_ratio),
          apart ? levels : 1,
          aligned,
          reduce == "select",
          stack,
          on_invalid == "zero",
          make_level_map(static_cast<int>(finest_level), levels, canonical_size,
                         static_cast<int>(canonical_level))};
}

}  // namespace segroi
