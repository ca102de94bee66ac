// Autograd of multi_level_roi_align, in C++: in Python its bookkeeping takes longer than the
// kernels of a small batch.
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "autograd/once.h"
#include "multi_level_plan.h"

namespace segroi {
namespace {

using Gradients = std::tuple<std::vector<at::Tensor>, at::Tensor>;

const auto& forward_operator() {
  static const auto op =
      find_operator<at::Tensor(at::TensorList, const at::Tensor&, const std::optional<at::Tensor>&,
                               at::IntArrayRef, at::ArrayRef<double>, int64_t, bool,
                               c10::string_view, int64_t, double, int64_t, c10::string_view)>(
          "segroi::multi_level_roi_align");
  return op;
}

const auto& backward_operator() {
  static const auto op = find_operator<Gradients(
      const at::Tensor&, at::TensorList, const at::Tensor&, const std::optional<at::Tensor>&,
      at::IntArrayRef, at::ArrayRef<double>, int64_t, bool, c10::string_view, int64_t, double,
      int64_t, c10::string_view, bool, bool)>("segroi::multi_level_roi_align_backward");
  return op;
}

// MULTI_LEVEL_VALUES, kept.
using Options = std::tuple<std::vector<int64_t>, std::vector<double>, int64_t, bool, std::string,
                           int64_t, double, int64_t, std::string>;

struct MultiLevelRoIAlign : torch::autograd::Function<MultiLevelRoIAlign> {
  static constexpr bool is_traceable = true;  // by compiled autograd

  static at::Tensor forward(AutogradContext* ctx, at::TensorList features, const at::Tensor& rois,
                            const std::optional<at::Tensor>& levels, const Options& options) {
    variable_list saved{rois, levels.value_or(at::Tensor())};
    saved.insert(saved.end(), features.begin(), features.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["options"] = keep(options);
    const auto& [output_size, spatial_scales, sampling_ratio, aligned, reduce, finest_level,
                 canonical_size, canonical_level, on_invalid] = options;
    return call_below(forward_operator(), features, rois, levels, MULTI_LEVEL_VALUES);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &rois = saved[0], &levels = saved[1];
    const at::TensorList features = at::TensorList(saved).slice(2);
    const auto [output_size, spatial_scales, sampling_ratio, aligned, reduce, finest_level,
                canonical_size, canonical_level, on_invalid] =
        Kept<Options>::get(ctx->saved_data["options"]);
    bool need_features = false;
    for (size_t l = 0; l < features.size(); ++l) need_features |= ctx->needs_input_grad(l);
    const bool need_rois = ctx->needs_input_grad(features.size());
    auto [to_features, to_rois] = backward_operator().call(
        grads[0], features, rois, levels.defined() ? std::optional(levels) : std::nullopt,
        MULTI_LEVEL_VALUES, need_features, need_rois);
    variable_list result(features.size() + 3);  // features, rois, levels, options
    if (need_features) std::move(to_features.begin(), to_features.end(), result.begin());
    if (need_rois) result[features.size()] = to_rois;
    return result;
  }
};

at::Tensor multi_level_roi_align(at::TensorList features, const at::Tensor& rois,
                                 const std::optional<at::Tensor>& levels, MULTI_LEVEL_ARGUMENTS) {
  return MultiLevelRoIAlign::apply(
      features, rois, levels,
      Options(output_size.vec(), spatial_scales.vec(), sampling_ratio, aligned, reduce,
              finest_level, canonical_size, canonical_level, on_invalid));
}

Gradients multi_level_roi_align_backward(const at::Tensor& grad, at::TensorList features,
                                         const at::Tensor& rois,
                                         const std::optional<at::Tensor>& levels,
                                         MULTI_LEVEL_ARGUMENTS, bool need_features,
                                         bool need_rois) {
  const auto run = [&] {
    return call_below(backward_operator(), grad, features, rois, levels, MULTI_LEVEL_VALUES,
                      need_features, need_rois);
  };
  if (!at::GradMode::is_enabled()) return run();
  variable_list inputs{grad, rois};
  inputs.insert(inputs.end(), features.begin(), features.end());
  variable_list results =
      Once::apply(at::TensorList(inputs), std::string("multi_level_roi_align"), [&] {
        auto [to_features, to_rois] = run();
        to_features.push_back(to_rois);
        return to_features;
      });
  const at::Tensor to_rois = results.back();
  results.pop_back();
  return {results, to_rois};
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, Autograd, m) {
  m.impl("multi_level_roi_align", &multi_level_roi_align);
  m.impl("multi_level_roi_align_backward", &multi_level_roi_align_backward);
}

}  // namespace segroi
