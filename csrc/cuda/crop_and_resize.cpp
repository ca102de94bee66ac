// crop_and_resize on CUDA: one launch forward, two backward to the maps, one to the boxes.
#include <torch/library.h>

#include "crop_plan.h"
#include "cuda/separable_ops.h"

namespace segroi::cuda {
namespace {

constexpr const char* kOp = "crop_and_resize";
constexpr double kScale = 1;  // boxes are in cells or normalised

SeparableArgs make_args(const CropAndResizePlan& plan, const at::Tensor& features,
                        const at::Tensor& boxes, const at::Tensor& index) {
  plan.check_inputs(features, boxes, index);
  SeparableArgs args{};
  set_boxes(&args, boxes,
            plan.aligned ? std::array<int, 4>{1, 0, 3, 2} : std::array<int, 4>{0, 1, 2, 3});
  args.image_column = -1;
  set_index(index, &args.image_index, &args.image_index_bytes, &args.image_index_stride);
  args.level_map = {0, 1};
  args.coordinates = plan.aligned ? Coordinates::crop_pixels : Coordinates::crop_normalized;
  args.bins[0] = static_cast<int>(plan.crop_h / plan.pool);
  args.bins[1] = static_cast<int>(plan.crop_w / plan.pool);
  args.samples[0] = static_cast<int>(plan.crop_h);
  args.samples[1] = static_cast<int>(plan.crop_w);
  args.pool = static_cast<int>(plan.pool);
  args.nearest = plan.nearest;
  args.extrapolation = plan.fill;
  args.op = OpCode::crop_and_resize;
  return args;
}

void run(const CropAndResizePlan& plan, const at::Tensor& features, const at::Tensor& boxes,
         const at::Tensor& index, const at::Tensor& out) {
  SeparableArgs args = make_args(plan, features, boxes, index);
  plan.check_crops("out", out, features, boxes);
  args.error_flag = plan.zero_invalid ? nullptr : error_flag(features.get_device());
  forward(&args, kOp, {features}, {kScale}, out.unsqueeze(1));
}

void crop_and_resize_out(const at::Tensor& features, const at::Tensor& boxes,
                         const at::Tensor& index, CROP_ARGUMENTS, const at::Tensor& out) {
  check_apart(kOp, out, features);
  run(CropAndResizePlan(CROP_VALUES), features, boxes, index, out);
}

at::Tensor crop_and_resize(const at::Tensor& features, const at::Tensor& boxes,
                           const at::Tensor& index, CROP_ARGUMENTS) {
  const CropAndResizePlan plan(CROP_VALUES);
  plan.check_inputs(features, boxes, index);
  const at::Tensor out = empty_crops(features, boxes.size(0), 1, plan.crop_h / plan.pool,
                                     plan.crop_w / plan.pool, false);
  run(plan, features, boxes, index, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor> crop_and_resize_backward(const at::Tensor& grad,
                                                            const at::Tensor& features,
                                                            const at::Tensor& boxes,
                                                            const at::Tensor& index, CROP_ARGUMENTS,
                                                            std::array<bool, 2> needs) {
  const CropAndResizePlan plan(CROP_VALUES);
  SeparableArgs args = make_args(plan, features, boxes, index);
  plan.check_crops("grad", grad, features, boxes);
  args.error_flag = plan.zero_invalid ? nullptr : error_word_of(features.get_device());
  const at::Tensor slots = grad.unsqueeze(1);  // what is not needed is not filled: nobody reads it
  return {needs[0] ? backward_maps(args, kOp, {features}, {kScale}, slots)[0]
                   : at::empty_like(features, layout_of(features)),
          needs[1] ? backward_boxes(args, kOp, {features}, {kScale}, slots, boxes)
                   : at::empty_like(boxes)};
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CUDA, m) {
  m.impl("crop_and_resize", &crop_and_resize);
  m.impl("crop_and_resize_out", &crop_and_resize_out);
  m.impl("crop_and_resize_backward", &crop_and_resize_backward);
}

}  // namespace segroi::cuda
