// Python's view of the extension: what was built, and thin calls into the dispatcher (no second
// path). The only file that includes torch/extension.h, which alone costs half a minute of compile
// time.
#include <torch/extension.h>
#include <torch/version.h>

#include <string>

#ifndef SEGROI_CUDA_ARCHS
#define SEGROI_CUDA_ARCHS ""
#endif
#ifndef SEGROI_CUDA_VERSION
#define SEGROI_CUDA_VERSION ""
#endif
#ifndef SEGROI_SANITIZERS
#define SEGROI_SANITIZERS ""
#endif

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["torch"] = TORCH_VERSION;
  info["compiler"] = __VERSION__;
  info["cuda"] = SEGROI_CUDA_VERSION;  // "" when built for the CPU only
  info["cuda_archs"] = SEGROI_CUDA_ARCHS;
  info["sanitizers"] = SEGROI_SANITIZERS;
#ifdef _OPENMP
  info["openmp"] = _OPENMP;
#else
  info["openmp"] = 0;
#endif
#ifdef NDEBUG
  info["debug"] = false;
#else
  info["debug"] = true;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Compiled operators of segroi; use segroi.ops.";
  m.def("build_info", &build_info, "How this extension was compiled.");
}
