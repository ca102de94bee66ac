// Gradient of integer crops: each task owns some lines of a map and adds the rows that show them,
// in order, so that the result does not depend on the number of threads.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "cpu/encompass_windows.h"
#include "cpu/pages.h"

namespace segroi {
namespace {

// The gradient of one crop of one map; strides in elements. null: no gradient.
struct GradCrop {
  const void* grad;
  int64_t image, y, x, h, w;  // px of the map
  int64_t plane, row;         // strides of grad
};

// Lines of a map: rows [y0, y1) of planes [p0, p1) of one image. NHWC: one plane, wide pixels.
struct Lines {
  int64_t image, p0, p1, y0, y1;
};

template <typename scalar_t, typename acc_t>
void add_crop(const GradCrop& crop, int64_t plane, const Lines& lines, int64_t pixel, int64_t pitch,
              acc_t* sum) {
  const scalar_t* grad = static_cast<const scalar_t*>(crop.grad) + plane * crop.plane;
  const int64_t y0 = std::max(lines.y0, crop.y), y1 = std::min(lines.y1, crop.y + crop.h);
  for (int64_t y = y0; y < y1; ++y) {
    const scalar_t* from = grad + (y - crop.y) * crop.row;
    acc_t* to = sum + (y - lines.y0) * pitch + crop.x * pixel;
    for (int64_t i = 0; i < crop.w * pixel; ++i) to[i] += static_cast<acc_t>(from[i]);
  }
}

template <typename scalar_t>
void add_lines(const std::vector<GradCrop>& crops, const Lines& lines, int64_t pixel, int64_t pitch,
               int64_t plane_size, scalar_t* image) {
  using acc_t = at::opmath_type<scalar_t>;
  const int64_t n = (lines.y1 - lines.y0) * pitch;
  std::vector<acc_t> scratch(std::is_same_v<scalar_t, acc_t> ? 0 : n);
  for (int64_t p = lines.p0; p < lines.p1; ++p) {
    scalar_t* out = image + p * plane_size + lines.y0 * pitch;
    acc_t* sum = scratch.data();
    if constexpr (std::is_same_v<scalar_t, acc_t>) sum = out;
    std::fill_n(sum, n, acc_t(0));
    for (const GradCrop& crop : crops) {
      if (crop.grad != nullptr && crop.image == lines.image) {
        add_crop<scalar_t>(crop, p, lines, pixel, pitch, sum);
      }
    }
    if constexpr (!std::is_same_v<scalar_t, acc_t>) std::copy_n(sum, n, out);
  }
}

// Sum of the crops' gradients, as a map of the given size.
at::Tensor sum_crops(const std::vector<GradCrop>& crops, at::IntArrayRef size, bool channels_last,
                     const at::TensorOptions& options) {
  const int64_t channels = size[1], height = size[2];
  const at::Tensor out = empty_large(
      size, channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous, options);
  const int64_t pixel = channels_last ? channels : 1, pitch = size[3] * pixel;
  const int64_t planes = channels_last ? 1 : channels;
  const int64_t plane_step = channels_last ? 1 : 8, row_step = channels_last ? 4 : height;
  std::vector<Lines> tasks;
  for (int64_t n = 0; n < size[0]; ++n) {
    for (int64_t p = 0; p < planes; p += plane_step) {
      for (int64_t y = 0; y < height; y += row_step) {
        tasks.push_back(
            {n, p, std::min(p + plane_step, planes), y, std::min(y + row_step, height)});
      }
    }
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, out.scalar_type(), "encompass_crop_backward", [&] {
        scalar_t* data = out.mutable_data_ptr<scalar_t>();
        at::parallel_for(0, tasks.size(), 1, [&](int64_t begin, int64_t end) {
          for (int64_t t = begin; t < end; ++t) {
            add_lines(crops, tasks[t], pixel, pitch, height * pitch,
                      data + tasks[t].image * channels * size[2] * size[3]);
          }
        });
      });
  return out;
}

GradCrop grad_crop(const void* grad, const CropWindow& w, int64_t f, int64_t plane, int64_t row) {
  return {w.h > 0 ? grad : nullptr, w.image, w.y * f, w.x * f, w.h * f, w.w * f, plane, row};
}

const char* element(const at::Tensor& t, int64_t offset) {
  return static_cast<const char*>(t.const_data_ptr()) + offset * t.element_size();
}

std::vector<at::Tensor> encompass_crop_backward(at::TensorList grads, const at::Tensor& cells,
                                                const at::Tensor& batch_index,
                                                const at::Tensor& source, at::IntArrayRef sizes,
                                                at::IntArrayRef shapes, at::IntArrayRef rows,
                                                at::IntArrayRef grid, bool channels_last) {
  const char* op = "encompass_crop_backward";
  CropPlan plan = plan_grid(op, sizes, grid);
  plan_stacks(op, &plan, shapes, rows);
  plan.channels_last = channels_last;
  check_grads(op, grads, plan, sizes);
  check_boxes(op, cells, batch_index, grads[0].device());
  check_rows(op, source, plan, grads[0].device());
  const Boxes boxes{cells.contiguous(), batch_index.contiguous(), true};
  const std::vector<CropWindow> windows = row_windows(plan, boxes, source.contiguous());
  const int64_t maps = plan.factors.size();
  std::vector<at::Tensor> out;
  for (int64_t m = 0; m < maps; ++m) {
    std::vector<GradCrop> crops;
    std::vector<at::Tensor> kept;
    for (size_t s = 0; s < plan.stacks.size(); ++s) {
      const CropStack& stack = plan.stacks[s];
      const at::Tensor g = kept.emplace_back(grads[s * maps + m].contiguous(plan.format()));
      const int64_t plane = channels_last ? 0 : g.size(2) * g.size(3);
      const int64_t row = g.size(3) * (channels_last ? g.size(1) : 1);
      for (int64_t r = 0; r < stack.rows; ++r) {
        crops.push_back(grad_crop(element(g, r * g.size(1) * g.size(2) * g.size(3)),
                                  windows[stack.first + r], plan.factors[m], plane, row));
      }
    }
    out.push_back(sum_crops(crops, sizes.slice(4 * m, 4), channels_last, grads[0].options()));
  }
  return out;
}

std::vector<at::Tensor> encompass_crop_packed_backward(
    at::TensorList grads, const at::Tensor& cells, const at::Tensor& batch_index,
    const at::Tensor& offsets, at::IntArrayRef sizes, at::IntArrayRef grid, bool channels_last) {
  const char* op = "encompass_crop_packed_backward";
  CropPlan plan = plan_grid(op, sizes, grid);
  check_boxes(op, cells, batch_index, offsets.device());
  const int64_t total = check_packed_grads(op, grads, plan, sizes, offsets, cells);
  const Boxes boxes{cells.contiguous(), batch_index.contiguous(), true};
  const at::Tensor at = offsets.contiguous();
  const std::vector<CropWindow> windows = packed_windows(plan, boxes, at, total);
  std::vector<at::Tensor> out;
  for (size_t m = 0; m < plan.factors.size(); ++m) {
    const int64_t f = plan.factors[m], pixel = channels_last ? sizes[4 * m + 1] : 1;
    const at::Tensor g = channels_last ? grads[m].contiguous() : grads[m].t().contiguous();
    std::vector<GradCrop> crops;
    for (size_t k = 0; k < windows.size(); ++k) {
      crops.push_back(grad_crop(element(g, at.const_data_ptr<int64_t>()[k] * f * f * pixel),
                                windows[k], f, total * f * f, windows[k].w * f * pixel));
    }
    out.push_back(sum_crops(crops, sizes.slice(4 * m, 4), channels_last, g.options()));
  }
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CPU, m) {
  m.impl("encompass_crop_backward", &encompass_crop_backward);
  m.impl("encompass_crop_packed_backward", &encompass_crop_packed_backward);
}

}  // namespace segroi
