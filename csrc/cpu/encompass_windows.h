// The windows that the boxes of encompass_crop show, checked once before anything is copied.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "encompass_plan.h"

namespace segroi {

struct Boxes {
  at::Tensor cells, image;
  bool zero_invalid;

  CropWindow window(int64_t k, const CropGrid& grid, int64_t max_h, int64_t max_w) const {
    CropWindow w;
    const CropError error = crop_window(cells.const_data_ptr<int64_t>() + 4 * k,
                                        image.const_data_ptr<int64_t>()[k], grid, max_h, max_w, &w);
    TORCH_CHECK_VALUE(zero_invalid || error == CropError::none,
                      "encompass_crop: ", crop_error_text(error), ", got box ", k, " = ", cells[k],
                      " of image ", image[k].item<int64_t>());
    return w;
  }
};

// Windows of all rows of all stacks; `source` names the box of each row.
inline std::vector<CropWindow> row_windows(const CropPlan& plan, const Boxes& boxes,
                                           const at::Tensor& source) {
  const int64_t* box_of_row = source.const_data_ptr<int64_t>();
  std::vector<CropWindow> windows(plan.total_rows, CropWindow{0, 0, 0, 0, 0});
  for (const CropStack& s : plan.stacks) {
    for (int64_t r = s.first; r < s.first + s.rows; ++r) {
      if (box_of_row[r] < 0 || box_of_row[r] >= boxes.image.size(0)) continue;
      windows[r] = boxes.window(box_of_row[r], plan.grid, s.h, s.w);
    }
  }
  return windows;
}

// Windows of the packed form: box k fills the cells [offsets[k], offsets[k + 1]).
inline std::vector<CropWindow> packed_windows(const CropPlan& plan, const Boxes& boxes,
                                              const at::Tensor& offsets, int64_t total) {
  const int64_t* at = offsets.const_data_ptr<int64_t>();
  std::vector<CropWindow> windows;
  for (int64_t k = 0; k < boxes.image.size(0); ++k) {
    windows.push_back(boxes.window(k, plan.grid, plan.grid.h, plan.grid.w));
    const CropWindow& w = windows.back();
    TORCH_CHECK_VALUE(at[k] >= 0 && at[k] <= total && w.h * w.w <= total - at[k],
                      "encompass_crop_packed: offsets must leave room for box ", k, ", got ",
                      at[k]);
  }
  return windows;
}

}  // namespace segroi
