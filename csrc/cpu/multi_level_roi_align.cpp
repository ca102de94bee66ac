// multi_level_roi_align on the CPU: RoIs -> sources of the separable engine.
#include <torch/library.h>

#include <cmath>

#include "cpu/separable.h"
#include "multi_level_plan.h"

namespace segroi {
namespace {

template <typename A>
bool is_valid(const A* roi, int64_t images) {
  for (int i = 1; i < 5; ++i) {
    if (!std::isfinite(roi[i])) return false;
  }
  return roi[0] >= 0 && roi[0] < static_cast<A>(images) && roi[0] == std::floor(roi[0]);
}

[[noreturn]] void refuse(const at::Tensor& roi, int64_t k, int64_t images) {
  const bool finite = roi.slice(0, 1).isfinite().all().item<bool>();
  const std::string expected =
      finite ? "begin with a batch index in [0, " + std::to_string(images) + ")"
             : "have finite boxes";
  std::ostringstream got;
  for (int i = finite ? 0 : 1; i < (finite ? 1 : 5); ++i)
    got << (i > 1 ? ", " : "") << roi[i].item<double>();
  TORCH_CHECK_VALUE(false, "multi_level_roi_align: rois must ", expected, ", got ", got.str(),
                    " at position ", k);
}

template <typename A>
Separable<A> make_problem(at::TensorList features, const at::Tensor& rois_in,
                          const std::optional<at::Tensor>& levels_in, const MultiLevelPlan& plan,
                          at::ArrayRef<double> scales) {
  const at::Tensor rois = rois_in.contiguous();
  at::Tensor levels;
  if (levels_in) levels = levels_in->to(at::kLong).contiguous();
  Separable<A> p;
  p.maps = features.vec();
  p.rois = rois.size(0);
  p.slots = static_cast<int>(plan.slots);
  p.per = plan.select || plan.slots > 1 || plan.levels == 1 ? 1 : plan.levels;
  p.bins_h = plan.bins_h, p.bins_w = plan.bins_w;
  const int per_roi = p.slots * p.per;
  p.sources.resize(p.rois * per_roi);
  const int64_t images = features[0].size(0);
  for (int64_t k = 0; k < p.rois; ++k) {
    const A* roi = rois.const_data_ptr<A>() + 5 * k;
    const bool valid = is_valid(roi, images);
    if (!valid && !plan.zero_invalid) refuse(rois[k], k, images);
    int64_t chosen = 0;
    if (plan.select) {
      chosen = levels_in ? levels.const_data_ptr<int64_t>()[k]
                         : box_level(plan.level_map, roi[1], roi[2], roi[3], roi[4]);
    }
    const bool exists = chosen >= 0 && chosen < plan.levels;
    TORCH_CHECK_VALUE(exists || plan.zero_invalid, "multi_level_roi_align: levels must be in [0, ",
                      plan.levels, "), got ", chosen, " at position ", k);
    if (!valid || !exists) continue;
    for (int s = 0; s < per_roi; ++s) {
      const int level = plan.select ? static_cast<int>(chosen) : s;
      const at::Tensor& map = p.maps[level];
      const A scale = static_cast<A>(scales[level]);
      p.sources[k * per_roi + s] = {
          level, static_cast<int64_t>(roi[0]),
          roi_align_axis(roi[2], roi[4], scale, plan.bins_h, plan.sampling_ratio, plan.aligned,
                         static_cast<int>(map.size(2))),
          roi_align_axis(roi[1], roi[3], scale, plan.bins_w, plan.sampling_ratio, plan.aligned,
                         static_cast<int>(map.size(3)))};
    }
  }
  return p;
}

// The output as the engine sees it: [K, slots, C, h, w].
at::Tensor by_slot(const at::Tensor& out, const MultiLevelPlan& plan) {
  if (plan.stack) return out;
  return out.unflatten(1, {plan.slots, plan.slots > 1 ? out.size(1) / plan.slots : out.size(1)});
}

void run(at::TensorList features, const at::Tensor& rois, const std::optional<at::Tensor>& levels,
         const MultiLevelPlan& plan, at::ArrayRef<double> scales, const at::Tensor& out) {
  check_result("out", out, features, rois, plan);
  if (rois.scalar_type() == at::kDouble) {
    separable_forward(make_problem<double>(features, rois, levels, plan, scales),
                      by_slot(out, plan));
  } else {
    separable_forward(make_problem<float>(features, rois, levels, plan, scales),
                      by_slot(out, plan));
  }
}

void multi_level_roi_align_out(at::TensorList features, const at::Tensor& rois,
                               const std::optional<at::Tensor>& levels, MULTI_LEVEL_ARGUMENTS,
                               at::Tensor& out) {
  const MultiLevelPlan plan = make_plan(features, MULTI_LEVEL_VALUES);
  check_rois(features, rois, levels);
  check_apart("multi_level_roi_align", out, features);
  run(features, rois, levels, plan, spatial_scales, out);
}

at::Tensor multi_level_roi_align(at::TensorList features, const at::Tensor& rois,
                                 const std::optional<at::Tensor>& levels, MULTI_LEVEL_ARGUMENTS) {
  const MultiLevelPlan plan = make_plan(features, MULTI_LEVEL_VALUES);
  check_rois(features, rois, levels);
  const at::Tensor out =
      empty_output(features[0], rois.size(0), plan.slots, plan.bins_h, plan.bins_w, plan.stack);
  run(features, rois, levels, plan, spatial_scales, out);
  return out;
}

template <typename A>
std::tuple<std::vector<at::Tensor>, at::Tensor> backward(const Separable<A>& p,
                                                         const at::Tensor& grad,
                                                         const at::Tensor& rois, bool need_features,
                                                         bool need_rois) {
  std::vector<at::Tensor> to_features;
  if (need_features) to_features = separable_backward_maps(p, grad);
  for (size_t l = to_features.size(); l < p.maps.size(); ++l) {
    to_features.push_back(at::empty({0}, p.maps[l].options()));
  }
  at::Tensor to_rois = at::zeros_like(rois, at::MemoryFormat::Contiguous);
  if (need_rois) {  // ends: y0, y1, x0, x1
    const at::Tensor order = at::tensor({2, 0, 3, 1}, at::kLong);
    to_rois.slice(1, 1).copy_(separable_backward_boxes(p, grad).index_select(1, order));
  }
  return {to_features, to_rois};
}

std::tuple<std::vector<at::Tensor>, at::Tensor> multi_level_roi_align_backward(
    const at::Tensor& grad, at::TensorList features, const at::Tensor& rois,
    const std::optional<at::Tensor>& levels, MULTI_LEVEL_ARGUMENTS, bool need_features,
    bool need_rois) {
  const MultiLevelPlan plan = make_plan(features, MULTI_LEVEL_VALUES);
  check_rois(features, rois, levels);
  check_result("grad", grad, features, rois, plan);
  const at::Tensor slots = by_slot(grad, plan);
  if (rois.scalar_type() == at::kDouble) {
    return backward(make_problem<double>(features, rois, levels, plan, spatial_scales), slots, rois,
                    need_features, need_rois);
  }
  return backward(make_problem<float>(features, rois, levels, plan, spatial_scales), slots, rois,
                  need_features, need_rois);
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CPU, m) {
  m.impl("multi_level_roi_align", &multi_level_roi_align);
  m.impl("multi_level_roi_align_out", &multi_level_roi_align_out);
  m.impl("multi_level_roi_align_backward", &multi_level_roi_align_backward);
}

}  // namespace segroi
