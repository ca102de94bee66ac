// Every schema of segroi on one screen. Kernels register themselves at the foot of cpu/<op>.cpp and
// cuda/<op>.cu; fake kernels and autograd stand in segroi/ops/<op>.py.
#include <torch/library.h>

TORCH_LIBRARY(segroi, m) {
  // CUDA builds only: what asynchronous kernels found wrong (segroi/ops/errors.py).
  m.def("take_error(int device) -> str");
}
