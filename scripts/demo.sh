#!/usr/bin/env bash
# The whole job on a bare machine: sets everything up (see setup_env.sh), then makes digit scenes, trains
# Mask R-CNN with GRoIE and a small SSD-ISB, evaluates, draws both side by side and reports; minutes on two
# CPU cores. Options are those of `segroi demo`.
#
#   bash scripts/demo.sh [--host d2|tv] [--output DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
# the CUDA kernels take minutes to compile: worth it only where a GPU runs them
if nvidia-smi -L >/dev/null 2>&1; then segroi_demo_cuda=auto; else segroi_demo_cuda=0; fi
source scripts/setup_env.sh demo "$segroi_demo_cuda"
exec segroi demo "$@"
