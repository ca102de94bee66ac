// segroi._C: the operators as plain Python functions, thin calls into the dispatcher (no second
// path). The only file that knows Python, so the operators' own library serves every version of it;
// torch/extension.h alone costs half a minute of compile time.
#include <torch/extension.h>

#include <optional>
#include <string>
#include <vector>

namespace {

using at::Tensor;
using Maps = std::vector<Tensor>;
using Sizes = std::vector<int64_t>;

// The operator segroi::<name> in the dispatcher.
template <typename Signature>
c10::TypedOperatorHandle<Signature> op(const char* name) {
  const std::string full = std::string("segroi::") + name;
  return c10::Dispatcher::singleton().findSchemaOrThrow(full.c_str(), "").typed<Signature>();
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Compiled operators of segroi; use segroi.ops.";
  m.def("encompassing_boxes", [](const Tensor& boxes, const Sizes& image_size, const Sizes& grid,
                                 bool zero_invalid) {
    return op<Tensor(const Tensor&, at::IntArrayRef, at::IntArrayRef, bool)>("encompassing_boxes")
        .call(boxes, image_size, grid, zero_invalid);
  });
  m.def("encompass_crop", [](const Maps& features, const Tensor& cells, const Tensor& batch_index,
                             const Tensor& source, const Sizes& shapes, const Sizes& rows,
                             const Sizes& grid, bool zero_invalid) {
    return op<Maps(at::TensorList, const Tensor&, const Tensor&, const Tensor&, at::IntArrayRef,
                   at::IntArrayRef, at::IntArrayRef, bool)>("encompass_crop")
        .call(features, cells, batch_index, source, shapes, rows, grid, zero_invalid);
  });
  m.def("crop_and_resize", [](const Tensor& features, const Tensor& boxes, const Tensor& box_index,
                              const Sizes& crop_size, const std::string& method, double fill,
                              const std::string& coordinates, int64_t pool,
                              const std::string& on_invalid) {
    return op<Tensor(const Tensor&, const Tensor&, const Tensor&, at::IntArrayRef, c10::string_view,
                     double, c10::string_view, int64_t, c10::string_view)>("crop_and_resize")
        .call(features, boxes, box_index, crop_size, method, fill, coordinates, pool, on_invalid);
  });
  m.def("multi_level_roi_align",
        [](const Maps& features, const Tensor& rois, const std::optional<Tensor>& levels,
           const Sizes& output_size, const std::vector<double>& spatial_scales,
           int64_t sampling_ratio, bool aligned, const std::string& reduce, int64_t finest_level,
           double canonical_size, int64_t canonical_level, const std::string& on_invalid) {
          return op<Tensor(at::TensorList, const Tensor&, const std::optional<Tensor>&,
                           at::IntArrayRef, at::ArrayRef<double>, int64_t, bool, c10::string_view,
                           int64_t, double, int64_t, c10::string_view)>("multi_level_roi_align")
              .call(features, rois, levels, output_size, spatial_scales, sampling_ratio, aligned,
                    reduce, finest_level, canonical_size, canonical_level, on_invalid);
        });
}
