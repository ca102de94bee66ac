// What the CPU and the CUDA kernel of encompass_crop both derive from their arguments.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "checks.h"
#include "common/encompass.h"

namespace segroi {

// Crops that share one shape: `rows` rows of h x w cells. The packed form is a stack of shape 0 x 0
// whose rows have the size of their boxes.
struct CropStack {
  int64_t h, w, rows, first;  // first: index of the stack's row 0 among all rows
};

struct CropPlan {
  CropGrid grid;
  std::vector<int64_t> factors;  // of each map
  std::vector<CropStack> stacks;
  int64_t total_rows = 0;
  bool channels_last = false;

  at::MemoryFormat format() const {
    return channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  }
  // Shape of the crops of one stack from one map.
  std::vector<int64_t> size(const CropStack& s, int64_t map, int64_t channels) const {
    return {s.rows, channels, s.h * factors[map], s.w * factors[map]};
  }
};

// Channels last when every map is, and one of them unambiguously so.
inline bool all_channels_last(at::TensorList maps) {
  bool all = !maps.empty(), any = false;
  for (const at::Tensor& m : maps) {
    all = all && m.is_contiguous(at::MemoryFormat::ChannelsLast);
    any = any || !m.is_contiguous();
  }
  return all && any;
}

inline void check_index(const char* op, const char* name, const at::Tensor& t, int64_t dim,
                        at::Device device) {
  SEGROI_CHECK(op, t.scalar_type() == at::kLong && t.dim() == dim && t.device() == device, name,
               c10::str("an int64 tensor of ", dim, " dimension(s) on ", device), describe(t));
}

inline CropPlan plan_grid(const char* op, at::IntArrayRef sizes, at::IntArrayRef grid) {
  SEGROI_CHECK(op, grid.size() == 2 && grid[0] > 0 && grid[1] > 0, "grid_size",
               "two positive sizes", grid);
  SEGROI_CHECK(op, !sizes.empty() && sizes.size() % 4 == 0, "features",
               "a list of maps [N, C, H, W]", sizes);
  CropPlan plan;
  plan.grid = {sizes[0], grid[0], grid[1]};
  for (size_t m = 0; m < sizes.size(); m += 4) {
    const int64_t factor = sizes[m + 2] / grid[0];
    SEGROI_CHECK(op,
                 sizes[m] == sizes[0] && factor > 0 && sizes[m + 2] == factor * grid[0] &&
                     sizes[m + 3] == factor * grid[1],
                 "features", c10::str("maps whose size is one integer multiple of the grid ", grid),
                 sizes.slice(m, 4));
    plan.factors.push_back(factor);
  }
  return plan;
}

inline void plan_stacks(const char* op, CropPlan* plan, at::IntArrayRef shapes,
                        at::IntArrayRef rows) {
  SEGROI_CHECK(op, shapes.size() == 2 * rows.size(), "shapes", "one (h, w) for each entry of rows",
               shapes);
  for (size_t s = 0; s < rows.size(); ++s) {
    const int64_t h = shapes[2 * s], w = shapes[2 * s + 1];
    SEGROI_CHECK(op, h > 0 && w > 0 && rows[s] >= 0, "shapes", "positive sizes in cells", shapes);
    plan->stacks.push_back({h, w, rows[s], plan->total_rows});
    plan->total_rows += rows[s];
  }
}

inline std::vector<int64_t> map_sizes(const char* op, at::TensorList features) {
  std::vector<int64_t> sizes;
  for (const at::Tensor& f : features) {
    SEGROI_CHECK(op,
                 f.dim() == 4 && f.device() == features[0].device() &&
                     f.scalar_type() == features[0].scalar_type(),
                 "features", "Tensor[N, C, H, W] of one dtype on one device", describe(f));
    sizes.insert(sizes.end(), f.sizes().begin(), f.sizes().end());
  }
  return sizes;
}

inline void check_boxes(const char* op, const at::Tensor& cells, const at::Tensor& batch_index,
                        at::Device device) {
  check_index(op, "cells", cells, 2, device);
  check_index(op, "batch_index", batch_index, 1, device);
  SEGROI_CHECK(op, cells.size(1) == 4 && cells.size(0) == batch_index.size(0), "cells",
               "Tensor[K, 4] with a batch_index Tensor[K]", describe(cells));
}

inline CropPlan plan_packed(const char* op, at::TensorList features, const at::Tensor& cells,
                            const at::Tensor& batch_index, const at::Tensor& offsets, int64_t total,
                            at::IntArrayRef grid) {
  CropPlan plan = plan_grid(op, map_sizes(op, features), grid);
  check_boxes(op, cells, batch_index, features[0].device());
  check_index(op, "offsets", offsets, 1, features[0].device());
  SEGROI_CHECK(op, offsets.size(0) == cells.size(0) + 1 && total >= 0, "offsets",
               "Tensor[K + 1] that ends with the total", describe(offsets));
  plan.channels_last = all_channels_last(features);
  return plan;
}

// Tensor[pixels, C], whose memory has the layout of the maps: [pixels, C] or [C, pixels].
inline at::Tensor packed_values(const CropPlan& plan, int64_t pixels, const at::Tensor& map) {
  if (plan.channels_last) return at::empty({pixels, map.size(1)}, map.options());
  return at::empty({map.size(1), pixels}, map.options()).t();
}

inline void check_out(at::TensorList features, const CropPlan& plan, at::TensorList out) {
  const char* op = "encompass_crop";
  SEGROI_CHECK(op, out.size() == plan.stacks.size() * features.size(), "out",
               "one tensor for each shape and map", c10::str(out.size(), " tensors"));
  for (size_t i = 0; i < out.size(); ++i) {
    const at::Tensor& map = features[i % features.size()];
    const CropStack& stack = plan.stacks[i / features.size()];
    SEGROI_CHECK(op,
                 out[i].sizes() == plan.size(stack, i % features.size(), map.size(1)) &&
                     out[i].scalar_type() == map.scalar_type() && out[i].device() == map.device() &&
                     out[i].is_contiguous(plan.format()),
                 "out", "tensors of the crops' sizes, dtype and memory format", describe(out[i]));
    check_apart(op, out[i], features);
    check_apart(op, out[i], out.slice(0, i));
  }
}

inline void check_rows(const char* op, const at::Tensor& source, const CropPlan& plan,
                       at::Device device) {
  check_index(op, "source", source, 1, device);
  SEGROI_CHECK(op, source.size(0) == plan.total_rows, "source", "one entry for each row",
               describe(source));
}

inline void check_grads(const char* op, at::TensorList grads, const CropPlan& plan,
                        at::IntArrayRef sizes) {
  const size_t maps = plan.factors.size();
  SEGROI_CHECK(op, !grads.empty() && grads.size() == plan.stacks.size() * maps, "grads",
               "one tensor for each shape and map", c10::str(grads.size(), " tensors"));
  for (size_t i = 0; i < grads.size(); ++i) {
    const int64_t m = i % maps;
    SEGROI_CHECK(op,
                 grads[i].sizes() == plan.size(plan.stacks[i / maps], m, sizes[4 * m + 1]) &&
                     grads[i].options().type_equal(grads[0].options()),
                 "grads", "tensors of the crops' sizes, one dtype, one device", describe(grads[i]));
  }
}

// Returns the number of packed cells.
inline int64_t check_packed_grads(const char* op, at::TensorList grads, const CropPlan& plan,
                                  at::IntArrayRef sizes, const at::Tensor& offsets,
                                  const at::Tensor& cells) {
  check_index(op, "offsets", offsets, 1, offsets.device());
  SEGROI_CHECK(op, offsets.size(0) == cells.size(0) + 1, "offsets", "Tensor[K + 1]",
               describe(offsets));
  SEGROI_CHECK(op, !grads.empty() && grads.size() == plan.factors.size(), "grads",
               "one tensor for each map", c10::str(grads.size(), " tensors"));
  const int64_t area = plan.factors[0] * plan.factors[0];
  const int64_t total = grads[0].size(0) / area;
  for (size_t m = 0; m < grads.size(); ++m) {
    const int64_t pixels = total * plan.factors[m] * plan.factors[m];
    SEGROI_CHECK(op,
                 grads[m].sizes() == at::IntArrayRef({pixels, sizes[4 * m + 1]}) &&
                     grads[m].options().type_equal(grads[0].options()),
                 "grads", "Tensor[pixels, C] of one dtype on one device", describe(grads[m]));
  }
  return total;
}

inline void check_encompassing(const at::Tensor& boxes, at::IntArrayRef image_size,
                               at::IntArrayRef grid_size) {
  const char* op = "encompassing_boxes";
  SEGROI_CHECK(op, boxes.dim() == 2 && boxes.size(1) == 4, "boxes", "Tensor[K, 4]",
               describe(boxes));
  SEGROI_CHECK(op, boxes.scalar_type() == at::kFloat || boxes.scalar_type() == at::kDouble, "boxes",
               "float32 or float64", describe(boxes));
  SEGROI_CHECK(op, image_size.size() == 2 && image_size[0] > 0 && image_size[1] > 0, "image_size",
               "two positive sizes", image_size);
  SEGROI_CHECK(op, grid_size.size() == 2 && grid_size[0] > 0 && grid_size[1] > 0, "grid_size",
               "two positive sizes", grid_size);
}

// First row of each stack, and the total.
inline std::vector<int64_t> first_rows(const at::Tensor& branch, at::IntArrayRef rows) {
  check_index("stack_rows", "branch", branch, 1, branch.device());
  std::vector<int64_t> first{0};
  for (const int64_t n : rows) {
    SEGROI_CHECK("stack_rows", n >= 0, "rows", "counts", rows);
    first.push_back(first.back() + n);
  }
  return first;
}

// Why a box cannot be shown, in the words of the Python argument.
inline std::string crop_error_text(CropError error) {
  switch (error) {
    case CropError::image:
      return "batch_index must be in range of the images";
    case CropError::cells:
      return "cells must be a non-empty (x0, y0, x1, y1) inside the grid";
    default:
      return "cells must fit the shape of their branch";
  }
}

}  // namespace segroi
