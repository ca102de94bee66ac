#include "cuda/encompass_crop.cuh"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "cuda/device_errors.h"
#include "encompass_plan.h"

namespace segroi {
namespace {

constexpr int64_t kMaxRow = int64_t{1} << 31;  // elements of one crop: indexed with 32 bits
constexpr int64_t kUnitsPerThread = 8;

int64_t* error_of(const at::Tensor& t, bool zero_invalid) {
  return zero_invalid ? nullptr : error_flag(t.get_device());
}

struct BoxArguments {
  at::Tensor cells, image, source, offsets;  // kept alive for the launch

  CropBoxes boxes(const CropPlan& plan, int64_t* error) const {
    return {cells.const_data_ptr<int64_t>(),
            image.const_data_ptr<int64_t>(),
            source.defined() ? source.const_data_ptr<int64_t>() : nullptr,
            offsets.defined() ? offsets.const_data_ptr<int64_t>() : nullptr,
            image.size(0),
            plan.grid,
            error,
            error_word(OpCode::encompass_crop, 0)};
  }
};

// The widest unit that all maps and stacks can be read in: whole pixels of a channels-last map.
int64_t unit_bytes(const CropPlan& plan, at::TensorList maps, at::TensorList crops) {
  const int64_t element = maps[0].element_size();
  if (!plan.channels_last) return element;
  int64_t unit = 16;
  for (const at::TensorList list : {maps, crops}) {
    for (const at::Tensor& t : list) {
      const int64_t bits = t.size(1) * element | reinterpret_cast<intptr_t>(t.const_data_ptr());
      while (unit > element && bits % unit != 0) unit /= 2;
    }
  }
  return unit;
}

// Group of one stack and one map, whose tensors are given; strides in units.
CropGroup group_of(const CropPlan& plan, const CropStack& stack, int64_t m, const at::Tensor& map,
                   const at::Tensor& crops, int64_t unit) {
  const int64_t per = unit / map.element_size();  // elements of a unit
  CropGroup g = {};
  g.map = map.const_data_ptr();
  g.out = const_cast<void*>(crops.const_data_ptr());
  g.image_stride = map.stride(0) / per;
  g.plane_stride = plan.channels_last ? 0 : map.stride(1);
  g.line_stride = map.stride(2) / per;
  g.planes = plan.channels_last ? 1 : map.size(1);
  g.pixel = plan.channels_last ? map.size(1) / per : 1;
  g.factor = plan.factors[m];
  g.h = stack.h, g.w = stack.w;
  g.rows = stack.rows, g.first_row = stack.first;
  g.packed_plane = stack.h == 0 ? crops.size(0) : 0;
  return g;
}

template <typename Unit, int kPack>
void launch_crop(const CropGroups& groups, const CropBoxes& boxes, int64_t jobs, int64_t units) {
  const int64_t per_block = kCropThreads * std::max<int64_t>(kPack, kUnitsPerThread);
  const dim3 grid(jobs, std::clamp<int64_t>((units + per_block - 1) / per_block, 1, 65535));
  encompass_crop_kernel<Unit, kPack>
      <<<grid, kCropThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(groups, boxes);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// A pack of several elements may be stored at once where every row of every stack is a whole number
// of packs (NCHW: the loads stay single elements).
bool packs(const CropPlan& plan, at::TensorList crops, int64_t bytes) {
  if (plan.channels_last || plan.stacks[0].h == 0) return false;
  return std::all_of(crops.begin(), crops.end(), [&](const at::Tensor& t) {
    const int64_t row = t.size(1) * t.size(2) * t.size(3) * t.element_size();
    return row % bytes == 0 && reinterpret_cast<intptr_t>(t.const_data_ptr()) % bytes == 0;
  });
}

void launch_crops(const CropPlan& plan, const CropGroups& groups, const CropBoxes& boxes,
                  at::TensorList crops, int64_t unit, int64_t units) {
  const CropGroup& last = groups.group[groups.count - 1];
  const int64_t jobs = last.first_job + last.rows;
  if (jobs == 0 || units == 0) return;
  const bool pack = packs(plan, crops, 16);
  switch (unit) {
    case 1:
      return pack ? launch_crop<uint8_t, 16>(groups, boxes, jobs, units)
                  : launch_crop<uint8_t, 1>(groups, boxes, jobs, units);
    case 2:
      return pack ? launch_crop<uint16_t, 8>(groups, boxes, jobs, units)
                  : launch_crop<uint16_t, 1>(groups, boxes, jobs, units);
    case 4:
      return pack ? launch_crop<uint32_t, 4>(groups, boxes, jobs, units)
                  : launch_crop<uint32_t, 1>(groups, boxes, jobs, units);
    case 8:
      return pack ? launch_crop<uint2, 2>(groups, boxes, jobs, units)
                  : launch_crop<uint2, 1>(groups, boxes, jobs, units);
    default:
      return launch_crop<uint4, 1>(groups, boxes, jobs, units);
  }
}

void check_groups(const CropPlan& plan, at::TensorList maps) {
  const int64_t groups = plan.stacks.size() * maps.size();
  SEGROI_CHECK("encompass_crop", groups <= kCropGroups, "shapes",
               c10::str("at most ", kCropGroups, " pairs of a shape and a map on CUDA"), groups);
}

// Copies boxes of `maps` to `crops`, which are ordered by stack, then by map.
void write_crops(const CropPlan& plan, at::TensorList features, at::TensorList crops,
                 const BoxArguments& arguments, bool zero_invalid) {
  check_groups(plan, features);
  std::vector<at::Tensor> maps;
  for (const at::Tensor& m : features) {
    maps.push_back(plan.channels_last || m.stride(3) == 1 ? m : m.contiguous());
  }
  const int64_t unit = unit_bytes(plan, maps, crops);
  CropGroups groups = {};
  int64_t jobs = 0, largest = 0;
  for (const CropStack& stack : plan.stacks) {
    for (size_t m = 0; m < maps.size(); ++m) {
      const int64_t f = plan.factors[m];
      CropGroup g = group_of(plan, stack, m, maps[m], crops[groups.count], unit);
      g.first_job = jobs;
      jobs += g.rows;
      const bool packed = stack.h == 0;
      const int64_t cells = packed ? plan.grid.h * plan.grid.w : stack.h * stack.w;
      largest = std::max(largest, cells * f * f * g.planes * g.pixel);
      groups.group[groups.count++] = g;
    }
  }
  SEGROI_CHECK("encompass_crop", largest < kMaxRow, "shapes", "crops of less than 2^31 elements",
               largest);
  if (groups.count == 0) return;
  launch_crops(plan, groups, arguments.boxes(plan, error_of(maps[0], zero_invalid)), crops, unit,
               largest);
}

CropPlan plan_crops(at::TensorList features, const at::Tensor& cells, const at::Tensor& batch_index,
                    const at::Tensor& source, at::IntArrayRef shapes, at::IntArrayRef rows,
                    at::IntArrayRef grid) {
  const char* op = "encompass_crop";
  CropPlan plan = plan_grid(op, map_sizes(op, features), grid);
  plan_stacks(op, &plan, shapes, rows);
  check_boxes(op, cells, batch_index, features[0].device());
  check_rows(op, source, plan, features[0].device());
  plan.channels_last = all_channels_last(features);
  return plan;
}

std::vector<at::Tensor> encompass_crop(at::TensorList features, const at::Tensor& cells,
                                       const at::Tensor& batch_index, const at::Tensor& source,
                                       at::IntArrayRef shapes, at::IntArrayRef rows,
                                       at::IntArrayRef grid, bool zero_invalid) {
  const c10::cuda::CUDAGuard guard(cells.device());
  const CropPlan plan = plan_crops(features, cells, batch_index, source, shapes, rows, grid);
  std::vector<at::Tensor> out;
  for (const CropStack& stack : plan.stacks) {
    for (size_t m = 0; m < features.size(); ++m) {
      out.push_back(at::empty(plan.size(stack, m, features[m].size(1)), features[m].options(),
                              plan.format()));
    }
  }
  write_crops(plan, features, out,
              {cells.contiguous(), batch_index.contiguous(), source.contiguous()}, zero_invalid);
  return out;
}

void encompass_crop_out(at::TensorList features, const at::Tensor& cells,
                        const at::Tensor& batch_index, const at::Tensor& source,
                        at::IntArrayRef shapes, at::IntArrayRef rows, at::IntArrayRef grid,
                        bool zero_invalid, at::TensorList out) {
  const c10::cuda::CUDAGuard guard(cells.device());
  const CropPlan plan = plan_crops(features, cells, batch_index, source, shapes, rows, grid);
  check_out(features, plan, out);
  write_crops(plan, features, out,
              {cells.contiguous(), batch_index.contiguous(), source.contiguous()}, zero_invalid);
}

std::vector<at::Tensor> encompass_crop_packed(at::TensorList features, const at::Tensor& cells,
                                              const at::Tensor& batch_index,
                                              const at::Tensor& offsets, int64_t total,
                                              at::IntArrayRef grid, bool zero_invalid) {
  const char* op = "encompass_crop_packed";
  const c10::cuda::CUDAGuard guard(cells.device());
  CropPlan plan = plan_packed(op, features, cells, batch_index, offsets, total, grid);
  plan.stacks.push_back({0, 0, cells.size(0), 0});
  std::vector<at::Tensor> out;
  for (size_t m = 0; m < features.size(); ++m) {
    out.push_back(packed_values(plan, total * plan.factors[m] * plan.factors[m], features[m]));
  }
  write_crops(plan, features, out,
              {cells.contiguous(), batch_index.contiguous(), at::Tensor(), offsets.contiguous()},
              zero_invalid);
  return out;
}

// Sums the gradients of stacks, ordered by stack, then by map, into fresh maps.
std::vector<at::Tensor> sum_crops(const CropPlan& plan, at::TensorList grads, at::IntArrayRef sizes,
                                  const BoxArguments& arguments) {
  const int64_t count = plan.factors.size();
  std::vector<at::Tensor> maps;
  CropGroups groups = {};
  int64_t largest = 0;
  for (int64_t m = 0; m < count; ++m) {
    maps.push_back(at::empty(sizes.slice(4 * m, 4), grads[0].options(), plan.format()));
    const at::Tensor& map = maps.back();
    for (size_t s = 0; s < plan.stacks.size(); ++s) {
      groups.group[groups.count++] =
          group_of(plan, plan.stacks[s], m, map, grads[s * count + m], map.element_size());
    }
    const int64_t band = map.size(1) * plan.factors[m] * map.size(3);
    largest = std::max(largest, band);
  }
  const dim3 grid(plan.grid.images * plan.grid.h,
                  (largest + kCropThreads * kGradItems - 1) / (kCropThreads * kGradItems), count);
  SEGROI_CHECK("encompass_crop_backward", largest < kMaxRow && grid.y <= 65535, "features",
               "lines of cells of less than 2^26 elements", largest);
  if (grid.x == 0 || grid.y == 0) return maps;
  const CropBoxes boxes = arguments.boxes(plan, nullptr);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, grads[0].scalar_type(), "encompass_crop_backward", [&] {
        encompass_crop_grad_kernel<scalar_t, at::opmath_type<scalar_t>>
            <<<grid, kCropThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(groups, boxes);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      });
  return maps;
}

std::vector<at::Tensor> encompass_crop_backward(at::TensorList grads, const at::Tensor& cells,
                                                const at::Tensor& batch_index,
                                                const at::Tensor& source, at::IntArrayRef sizes,
                                                at::IntArrayRef shapes, at::IntArrayRef rows,
                                                at::IntArrayRef grid, bool channels_last) {
  const char* op = "encompass_crop_backward";
  const c10::cuda::CUDAGuard guard(cells.device());
  CropPlan plan = plan_grid(op, sizes, grid);
  plan_stacks(op, &plan, shapes, rows);
  plan.channels_last = channels_last;
  check_grads(op, grads, plan, sizes);
  check_groups(plan, grads.slice(0, plan.factors.size()));
  check_boxes(op, cells, batch_index, grads[0].device());
  check_rows(op, source, plan, grads[0].device());
  std::vector<at::Tensor> dense;
  for (const at::Tensor& g : grads) dense.push_back(g.contiguous(plan.format()));
  return sum_crops(plan, dense, sizes,
                   {cells.contiguous(), batch_index.contiguous(), source.contiguous()});
}

std::vector<at::Tensor> encompass_crop_packed_backward(
    at::TensorList grads, const at::Tensor& cells, const at::Tensor& batch_index,
    const at::Tensor& offsets, at::IntArrayRef sizes, at::IntArrayRef grid, bool channels_last) {
  const char* op = "encompass_crop_packed_backward";
  const c10::cuda::CUDAGuard guard(cells.device());
  CropPlan plan = plan_grid(op, sizes, grid);
  check_boxes(op, cells, batch_index, grads[0].device());
  check_packed_grads(op, grads, plan, sizes, offsets, cells);
  plan.channels_last = channels_last;
  plan.stacks.push_back({0, 0, cells.size(0), 0});
  check_groups(plan, grads);
  std::vector<at::Tensor> dense;
  for (const at::Tensor& g : grads) {
    dense.push_back(channels_last ? g.contiguous() : g.t().contiguous().t());
  }
  return sum_crops(
      plan, dense, sizes,
      {cells.contiguous(), batch_index.contiguous(), at::Tensor(), offsets.contiguous()});
}

at::Tensor encompassing_boxes(const at::Tensor& boxes, at::IntArrayRef image_size,
                              at::IntArrayRef grid_size, bool zero_invalid) {
  check_encompassing(boxes, image_size, grid_size);
  const c10::cuda::CUDAGuard guard(boxes.device());
  const at::Tensor corners = boxes.contiguous();
  const int64_t count = boxes.size(0);
  at::Tensor cells = at::empty({count, 4}, boxes.options().dtype(at::kLong));
  if (count == 0) return cells;
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "encompassing_boxes", [&] {
    encompassing_boxes_kernel<scalar_t><<<(count + kCropThreads - 1) / kCropThreads, kCropThreads,
                                          0, c10::cuda::getCurrentCUDAStream()>>>(
        corners.const_data_ptr<scalar_t>(), count, image_size[0], image_size[1], grid_size[0],
        grid_size[1], cells.mutable_data_ptr<int64_t>(), error_of(boxes, zero_invalid),
        error_word(OpCode::encompassing_boxes, 0));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return cells;
}

at::Tensor stack_rows(const at::Tensor& branch, at::IntArrayRef rows, bool zero_invalid) {
  const std::vector<int64_t> first = first_rows(branch, rows);
  SEGROI_CHECK("stack_rows", rows.size() <= kCropGroups, "rows",
               c10::str("at most ", kCropGroups, " stacks on CUDA"), rows.size());
  const c10::cuda::CUDAGuard guard(branch.device());
  at::Tensor source = at::full({first.back()}, -1, branch.options());
  const int64_t count = branch.size(0);
  if (count == 0) return source;
  StackRows stacks = {};
  stacks.count = rows.size();
  std::copy(first.begin(), first.end(), stacks.first);
  const at::Tensor branches = branch.contiguous();
  stack_rows_kernel<<<(count + kCropThreads - 1) / kCropThreads, kCropThreads, 0,
                      c10::cuda::getCurrentCUDAStream()>>>(
      branches.const_data_ptr<int64_t>(), count, stacks, source.mutable_data_ptr<int64_t>(),
      error_of(branch, zero_invalid), error_word(OpCode::stack_rows, 0));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return source;
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CUDA, m) {
  m.impl("encompassing_boxes", &encompassing_boxes);
  m.impl("stack_rows", &stack_rows);
  m.impl("encompass_crop", &encompass_crop);
  m.impl("encompass_crop.out", &encompass_crop_out);
  m.impl("encompass_crop_packed", &encompass_crop_packed);
  m.impl("encompass_crop_backward", &encompass_crop_backward);
  m.impl("encompass_crop_packed_backward", &encompass_crop_packed_backward);
}

}  // namespace segroi
