// Options and tensors of crop_and_resize, read and checked once for CPU and CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>

#include "checks.h"

// The options as every operator takes and hands them on.
#define CROP_ARGUMENTS                                                                           \
  at::IntArrayRef crop_size, c10::string_view method, double fill, c10::string_view coordinates, \
      int64_t pool, c10::string_view on_invalid
#define CROP_VALUES crop_size, method, fill, coordinates, pool, on_invalid

namespace segroi {

struct CropAndResizePlan {
  int64_t crop_h, crop_w, pool;
  bool nearest, aligned, zero_invalid;
  double fill;

  CropAndResizePlan(CROP_ARGUMENTS)
      : crop_h(crop_size[0]),
        crop_w(crop_size[1]),
        pool(pool),
        nearest(method == "nearest"),
        aligned(coordinates == "aligned"),
        zero_invalid(on_invalid == "zero"),
        fill(fill) {
    const int64_t limit = int64_t{1} << 20;
    SEGROI_CHECK("crop_and_resize",
                 pool >= 1 && crop_h >= 1 && crop_w >= 1 && crop_h < limit && crop_w < limit &&
                     crop_h % pool == 0 && crop_w % pool == 0,
                 "crop_size", "multiples of pool=" + std::to_string(pool) + " in [1, 2^20)",
                 crop_size);
  }

  // Refuses tensors of wrong type, shape or device.
  void check_inputs(const at::Tensor& features, const at::Tensor& boxes,
                    const at::Tensor& index) const {
    const char* op = "crop_and_resize";
    SEGROI_CHECK(op, features.dim() == 4 && features.size(2) > 0 && features.size(3) > 0,
                 "features", "Tensor[N, C, H, W] with H, W > 0", describe(features));
    const auto wide = features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    SEGROI_CHECK(op,
                 boxes.dim() == 2 && boxes.size(1) == 4 && boxes.scalar_type() == wide &&
                     boxes.device() == features.device(),
                 "boxes", std::string(toString(wide)) + " Tensor[K, 4] beside features",
                 describe(boxes));
    SEGROI_CHECK(op,
                 index.dim() == 1 && index.size(0) == boxes.size(0) &&
                     at::isIntegralType(index.scalar_type(), false) &&
                     index.device() == features.device(),
                 "box_index", "an integer Tensor[K] beside features", describe(index));
  }

  // Refuses a result, or its gradient, that is not [K, C, h, w] like features.
  void check_crops(const char* name, const at::Tensor& crops, const at::Tensor& features,
                   const at::Tensor& boxes) const {
    const std::array<int64_t, 4> size{boxes.size(0), features.size(1), crop_h / pool,
                                      crop_w / pool};
    SEGROI_CHECK(
        "crop_and_resize",
        crops.sizes() == at::IntArrayRef(size) && crops.scalar_type() == features.scalar_type() &&
            crops.device() == features.device(),
        name, c10::str("Tensor", at::IntArrayRef(size), " like features"), describe(crops));
  }
};

}  // namespace segroi
