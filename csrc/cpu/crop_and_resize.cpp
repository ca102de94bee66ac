// crop_and_resize on the CPU: one source per box for the separable engine.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "cpu/separable.h"
#include "crop_plan.h"
#include "layout.h"

namespace segroi {
namespace {

using at::Tensor;
constexpr const char* kOp = "crop_and_resize";

using Options = CropAndResizePlan;

// Whether box k is good; throws where it is not and that is an error.
template <typename A>
bool valid(const A* box, int64_t image, int64_t images, int64_t k, bool zero_invalid) {
  const bool finite = std::isfinite(box[0]) && std::isfinite(box[1]) && std::isfinite(box[2]) &&
                      std::isfinite(box[3]);
  const bool exists = image >= 0 && image < images;
  if (finite && exists) return true;
  TORCH_CHECK_VALUE(zero_invalid || finite, kOp, ": boxes must be finite, got [", box[0], ", ",
                    box[1], ", ", box[2], ", ", box[3], "] at position ", k);
  TORCH_CHECK_VALUE(zero_invalid, kOp, ": box_index must be in [0, ", images, "), got ", image,
                    " at position ", k);
  return false;
}

template <typename A>
Separable<A> problem_of(const Tensor& features, const Tensor& boxes, const Tensor& index,
                        const Options& o) {
  Separable<A> problem{{features},
                       {},
                       boxes.size(0),
                       1,
                       1,
                       static_cast<int>(o.crop_h / o.pool),
                       static_cast<int>(o.crop_w / o.pool),
                       static_cast<A>(o.fill)};
  problem.sources.resize(boxes.size(0));
  const Tensor corners = boxes.contiguous(), images = index.to(at::kLong).contiguous();
  const A* box = corners.const_data_ptr<A>();
  const int64_t* image = images.const_data_ptr<int64_t>();
  const int y = o.aligned ? 1 : 0, x = 1 - y, pool = static_cast<int>(o.pool);
  for (int64_t k = 0; k < boxes.size(0); ++k, box += 4) {
    if (!valid(box, image[k], features.size(0), k, o.zero_invalid)) continue;
    Source<A>& source = problem.sources[k];
    source.image = image[k];
    source.y =
        crop_axis<A>(box[y], box[y + 2], o.crop_h, pool, o.aligned, o.nearest, features.size(2));
    source.x =
        crop_axis<A>(box[x], box[x + 2], o.crop_w, pool, o.aligned, o.nearest, features.size(3));
  }
  return problem;
}

// Calls body with a value of the type that is accumulated in: double for double maps, else float.
template <typename Body>
void with_accumulator(const Tensor& features, Body body) {
  features.scalar_type() == at::kDouble ? body(double{}) : body(float{});
}

void crop_and_resize_out(const Tensor& features, const Tensor& boxes, const Tensor& index,
                         CROP_ARGUMENTS, const Tensor& out) {
  const Options o(CROP_VALUES);
  check_apart(kOp, out, features);
  o.check_inputs(features, boxes, index);
  o.check_crops("out", out, features, boxes);
  with_accumulator(features, [&](auto zero) {
    separable_forward(problem_of<decltype(zero)>(features, boxes, index, o), out.unsqueeze(1));
  });
}

Tensor crop_and_resize(const Tensor& features, const Tensor& boxes, const Tensor& index,
                       CROP_ARGUMENTS) {
  const Options o(CROP_VALUES);
  o.check_inputs(features, boxes, index);
  const Tensor out =
      empty_output(features, boxes.size(0), 1, o.crop_h / pool, o.crop_w / pool, false);
  crop_and_resize_out(features, boxes, index, CROP_VALUES, out);
  return out;
}

std::tuple<Tensor, Tensor> crop_and_resize_backward(const Tensor& grad, const Tensor& features,
                                                    const Tensor& boxes, const Tensor& index,
                                                    CROP_ARGUMENTS, std::array<bool, 2> needs) {
  const Options o(CROP_VALUES);
  o.check_inputs(features, boxes, index);
  o.check_crops("grad", grad, features, boxes);
  Tensor to_features, to_boxes;
  with_accumulator(features, [&](auto zero) {
    const auto problem = problem_of<decltype(zero)>(features, boxes, index, o);
    to_features = needs[0] ? separable_backward_maps(problem, grad.unsqueeze(1))[0]
                           : at::zeros_like(features, layout_of(features));
    if (!needs[1]) {
      to_boxes = at::zeros_like(boxes);
      return;
    }
    // The engine gives y start, y end, x start, x end.
    const std::vector<int64_t> order =
        o.aligned ? std::vector<int64_t>{2, 0, 3, 1} : std::vector<int64_t>{0, 2, 1, 3};
    to_boxes = separable_backward_boxes(problem, grad.unsqueeze(1))
                   .index_select(1, at::tensor(order, at::kLong));
  });
  return {to_features, to_boxes};
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CPU, m) {
  m.impl("crop_and_resize", &crop_and_resize);
  m.impl("crop_and_resize_out", &crop_and_resize_out);
  m.impl("crop_and_resize_backward", &crop_and_resize_backward);
}

}  // namespace segroi
