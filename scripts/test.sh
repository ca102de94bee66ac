#!/usr/bin/env bash
# Sets everything up (see setup_env.sh), checks the style and runs the tests; further arguments go to
# pytest. The CUDA kernels are compiled wherever nvcc is, for one architecture unless told otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
source scripts/setup_env.sh test,dev,docs auto
ruff check .
ruff format --check .
git ls-files 'csrc/*' | grep -E '\.(cpp|h|cu|cuh)$' | xargs -r clang-format --dry-run --Werror
segroi doctor || true # tells what this machine lacks; the tests decide
python -m pytest "$@"
