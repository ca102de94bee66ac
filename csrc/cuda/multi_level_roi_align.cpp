// multi_level_roi_align on CUDA: one launch forward, two backward.
#include <torch/library.h>

#include "cuda/separable_ops.h"
#include "multi_level_plan.h"

namespace segroi::cuda {
namespace {

constexpr const char* kOp = "multi_level_roi_align";

SeparableArgs make_args(const MultiLevelPlan& plan, at::TensorList features, const at::Tensor& rois,
                        const std::optional<at::Tensor>& levels) {
  check_rois(features, rois, levels);
  SeparableArgs args{};
  set_boxes(&args, rois, {2, 1, 4, 3});
  args.image_column = 0;
  if (levels) {
    set_index(*levels, &args.level_index, &args.level_index_bytes, &args.level_index_stride);
  }
  args.level_map = plan.level_map;
  args.coordinates = Coordinates::roi_align;
  args.bins[0] = plan.bins_h;
  args.bins[1] = plan.bins_w;
  args.samples[0] = args.samples[1] = plan.sampling_ratio;
  args.pool = 1;
  args.aligned = plan.aligned;
  args.all_levels = !plan.select;
  args.op = OpCode::multi_level_roi_align;
  return args;
}

// The result as the kernels see it: [K, slots, C, h, w].
at::Tensor by_slot(const at::Tensor& out, const MultiLevelPlan& plan, const at::Tensor& map) {
  return plan.stack ? out : out.unflatten(1, {plan.slots, map.size(1)});
}

void run(at::TensorList features, const at::Tensor& rois, const std::optional<at::Tensor>& levels,
         const MultiLevelPlan& plan, at::ArrayRef<double> scales, const at::Tensor& out) {
  SeparableArgs args = make_args(plan, features, rois, levels);
  check_result("out", out, features, rois, plan);
  args.error_flag = plan.zero_invalid ? nullptr : error_flag(features[0].get_device());
  forward(&args, kOp, features, scales, by_slot(out, plan, features[0]));
}

void multi_level_roi_align_out(at::TensorList features, const at::Tensor& rois,
                               const std::optional<at::Tensor>& levels, MULTI_LEVEL_ARGUMENTS,
                               at::Tensor& out) {
  check_apart("multi_level_roi_align", out, features);
  run(features, rois, levels, make_plan(features, MULTI_LEVEL_VALUES), spatial_scales, out);
}

at::Tensor multi_level_roi_align(at::TensorList features, const at::Tensor& rois,
                                 const std::optional<at::Tensor>& levels, MULTI_LEVEL_ARGUMENTS) {
  const MultiLevelPlan plan = make_plan(features, MULTI_LEVEL_VALUES);
  const at::Tensor out =
      empty_crops(features[0], rois.size(0), plan.slots, plan.bins_h, plan.bins_w, plan.stack);
  run(features, rois, levels, plan, spatial_scales, out);
  return out;
}

std::tuple<std::vector<at::Tensor>, at::Tensor> multi_level_roi_align_backward(
    const at::Tensor& grad, at::TensorList features, const at::Tensor& rois,
    const std::optional<at::Tensor>& levels, MULTI_LEVEL_ARGUMENTS, bool need_features,
    bool need_rois) {
  const MultiLevelPlan plan = make_plan(features, MULTI_LEVEL_VALUES);
  SeparableArgs args = make_args(plan, features, rois, levels);
  check_result("grad", grad, features, rois, plan);
  args.error_flag = plan.zero_invalid ? nullptr : error_word_of(features[0].get_device());
  const at::Tensor slots = by_slot(grad, plan, features[0]);
  std::vector<at::Tensor> to_features;
  if (need_features) to_features = backward_maps(args, kOp, features, spatial_scales, slots);
  for (size_t l = to_features.size(); l < features.size(); ++l) {
    to_features.push_back(at::empty({0}, features[l].options()));
  }
  // what is not needed is not filled: nobody reads it
  if (!need_rois) return {to_features, at::empty_like(rois, at::MemoryFormat::Contiguous)};
  return {to_features, backward_boxes(args, kOp, features, spatial_scales, slots, rois)};
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CUDA, m) {
  m.impl("multi_level_roi_align", &multi_level_roi_align);
  m.impl("multi_level_roi_align_out", &multi_level_roi_align_out);
  m.impl("multi_level_roi_align_backward", &multi_level_roi_align_backward);
}

}  // namespace segroi::cuda
