#!/usr/bin/env bash
# Build an instrumented extension in a copy of the sources and run the CPU operator tests under it.
#
#   bash scripts/sanitize.sh [pytest arguments]
#
# SEGROI_SANITIZE  sanitizers, default "address,undefined"
# SANITIZE_DIR     where the copy is built, default build/sanitize
set -euo pipefail
cd "$(dirname "$0")/.."
export SEGROI_SANITIZE=${SEGROI_SANITIZE:-address,undefined} SEGROI_CUDA=0
copy=${SANITIZE_DIR:-build/sanitize}
mkdir -p "$copy"
rm -rf "$copy"/{csrc,segroi,tests}
cp -a setup.py pyproject.toml README.md LICENSE csrc segroi tests "$copy"  # -a: rebuild what changed
rm -f "$copy"/segroi/_*.so
cd "$copy"
python setup.py --quiet build_ext --inplace

# The interpreter is not instrumented, so the runtimes must come first. Python and torch keep memory
# until exit (no leak check); alloc_dealloc_mismatch fires inside libtorch itself.
runtimes=$(for lib in libasan.so libubsan.so; do gcc -print-file-name=$lib; done | paste -sd:)
export ASAN_OPTIONS=detect_leaks=0:alloc_dealloc_mismatch=0:halt_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
tests=("$@")
[ $# -gt 0 ] || tests=(tests/ops -q -m "not slow and not big" -k "not compile and not opcheck")
LD_PRELOAD=$runtimes python -m pytest -p no:cacheprovider "${tests[@]}"
