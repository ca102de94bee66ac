// Options of multi_level_roi_align, read and checked once for CPU and CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "checks.h"
#include "common/level_map.h"

// The options as every operator takes and hands them on.
#define MULTI_LEVEL_ARGUMENTS                                                               \
  at::IntArrayRef output_size, at::ArrayRef<double> spatial_scales, int64_t sampling_ratio, \
      bool aligned, c10::string_view reduce, int64_t finest_level, double canonical_size,   \
      int64_t canonical_level, c10::string_view on_invalid
#define MULTI_LEVEL_VALUES                                                                    \
  output_size, spatial_scales, sampling_ratio, aligned, reduce, finest_level, canonical_size, \
      canonical_level, on_invalid

namespace segroi {

struct MultiLevelPlan {
  int bins_h, bins_w, levels, sampling_ratio;
  int64_t slots;  // outputs [C, h, w] of a RoI
  bool aligned, select, stack, zero_invalid;
  LevelMap level_map;
};

inline MultiLevelPlan make_plan(at::TensorList features, MULTI_LEVEL_ARGUMENTS) {
  const char* op = "multi_level_roi_align";
  SEGROI_CHECK(op, !features.empty(), "features", "at least one map", features.size());
  SEGROI_CHECK(op, spatial_scales.size() == features.size(), "spatial_scales", "one per map",
               spatial_scales.size());
  SEGROI_CHECK(op, output_size.size() == 2 && output_size[0] > 0 && output_size[1] > 0,
               "output_size", "two positive numbers", output_size);
  for (const at::Tensor& map : features) {
    SEGROI_CHECK(op,
                 map.dim() == 4 && map.size(0) == features[0].size(0) &&
                     map.size(1) == features[0].size(1) && map.size(2) > 0 && map.size(3) > 0 &&
                     map.scalar_type() == features[0].scalar_type() &&
                     map.device() == features[0].device(),
                 "features", "Tensor[N, C, H, W] of one N, C, dtype and device", describe(map));
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

// What the kernels read without looking again: the shapes and types of RoIs and levels.
inline void check_rois(at::TensorList features, const at::Tensor& rois,
                       const std::optional<at::Tensor>& levels) {
  const char* op = "multi_level_roi_align";
  const auto wide = features[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  SEGROI_CHECK(op,
               rois.dim() == 2 && rois.size(1) == 5 && rois.scalar_type() == wide &&
                   rois.device() == features[0].device(),
               "rois", std::string(toString(wide)) + " Tensor[K, 5] beside features",
               describe(rois));
  SEGROI_CHECK(op,
               !levels || (levels->dim() == 1 && levels->size(0) == rois.size(0) &&
                           at::isIntegralType(levels->scalar_type(), false) &&
                           levels->device() == rois.device()),
               "levels", "an integer Tensor[K] beside rois", describe(*levels));
}

// The same for the result or its gradient: [K, C, h, w], [K, L, C, h, w] or [K, L C, h, w].
inline void check_result(const char* argument, const at::Tensor& t, at::TensorList features,
                         const at::Tensor& rois, const MultiLevelPlan& plan) {
  std::vector<int64_t> size{rois.size(0), features[0].size(1), plan.bins_h, plan.bins_w};
  if (plan.stack) {
    size.insert(size.begin() + 1, plan.slots);
  } else {
    size[1] *= plan.slots;
  }
  SEGROI_CHECK("multi_level_roi_align",
               t.sizes() == at::IntArrayRef(size) && t.scalar_type() == features[0].scalar_type() &&
                   t.device() == features[0].device(),
               argument, c10::str("Tensor", at::IntArrayRef(size), " like features"), describe(t));
}

}  // namespace segroi
