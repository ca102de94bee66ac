// Autograd of crop_and_resize.
#include <torch/library.h>

#include <array>
#include <tuple>

#include "autograd/once.h"
#include "crop_plan.h"

namespace segroi {
namespace {

using Gradients = std::tuple<at::Tensor, at::Tensor>;

const auto& forward_operator() {
  static const auto op = find_operator<at::Tensor(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, at::IntArrayRef, c10::string_view,
      double, c10::string_view, int64_t, c10::string_view)>("segroi::crop_and_resize");
  return op;
}

const auto& backward_operator() {
  static const auto op = find_operator<Gradients(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, at::IntArrayRef,
      c10::string_view, double, c10::string_view, int64_t, c10::string_view, std::array<bool, 2>)>(
      "segroi::crop_and_resize_backward");
  return op;
}

// CROP_VALUES, kept.
using Options =
    std::tuple<std::vector<int64_t>, std::string, double, std::string, int64_t, std::string>;

struct CropAndResize : torch::autograd::Function<CropAndResize> {
  static constexpr bool is_traceable = true;  // by compiled autograd

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& features,
                            const at::Tensor& boxes, const at::Tensor& box_index,
                            const Options& options) {
    ctx->save_for_backward({features, boxes, box_index});
    ctx->saved_data["options"] = keep(options);
    const auto& [crop_size, method, fill, coordinates, pool, on_invalid] = options;
    return call_below(forward_operator(), features, boxes, box_index, CROP_VALUES);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto [crop_size, method, fill, coordinates, pool, on_invalid] =
        Kept<Options>::get(ctx->saved_data["options"]);
    const std::array<bool, 2> needs{ctx->needs_input_grad(0), ctx->needs_input_grad(1)};
    const auto [to_features, to_boxes] =
        backward_operator().call(grads[0], saved[0], saved[1], saved[2], CROP_VALUES, needs);
    const at::Tensor none;
    return {needs[0] ? to_features : none, needs[1] ? to_boxes : none, none, none};
  }
};

at::Tensor crop_and_resize(const at::Tensor& features, const at::Tensor& boxes,
                           const at::Tensor& box_index, CROP_ARGUMENTS) {
  return CropAndResize::apply(
      features, boxes, box_index,
      Options(crop_size.vec(), method, fill, coordinates, pool, on_invalid));
}

Gradients crop_and_resize_backward(const at::Tensor& grad, const at::Tensor& features,
                                   const at::Tensor& boxes, const at::Tensor& box_index,
                                   CROP_ARGUMENTS, std::array<bool, 2> needs) {
  const auto run = [&] {
    return call_below(backward_operator(), grad, features, boxes, box_index, CROP_VALUES, needs);
  };
  if (!at::GradMode::is_enabled()) return run();
  const variable_list inputs{grad, features, boxes};
  const variable_list results =
      Once::apply(at::TensorList(inputs), std::string("crop_and_resize"), [&] {
        const auto [to_features, to_boxes] = run();
        return variable_list{to_features, to_boxes};
      });
  return {results[0], results[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, Autograd, m) {
  m.impl("crop_and_resize", &crop_and_resize);
  m.impl("crop_and_resize_backward", &crop_and_resize_backward);
}

}  // namespace segroi
