#!/usr/bin/env python
"""Speed and memory of every row of Table 4.2 on this machine.

    python projects/LowCostSemSeg/speed.py [--size 1024 2048] [--runs 10] [--record]

Memory is what the thesis counts: the bytes of all layers' outputs in one forward pass, not a peak.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from segroi.modeling.semantic.low_cost import build_low_cost_segmenter
from segroi.utils.project_results import record

HALF = {"depth_multiplier": 0.5}
ROWS = {
    "SqueezeNet": {"encoder": "squeezenet"},
    "SqueezeNet FCN8": {"encoder": "squeezenet", "steps": 1},
    "SqueezeNet, stride 8": {"encoder": "squeezenet", "output_stride": 8},
    "MobileNet": HALF,
    "MobileNet FCN16": {**HALF, "steps": 1},
    "MobileNet FCN8": {**HALF, "steps": 2},
    "MobileNet, stride 16": {**HALF, "output_stride": 16},
    "MobileNet, stride 8": {**HALF, "output_stride": 8},
}


def count_parameters(model: nn.Module) -> int:
    """Parameters and moving statistics, as the thesis counts."""
    statistics_ = [v for k, v in model.named_buffers() if not k.endswith("num_batches_tracked")]
    return sum(v.numel() for v in [*model.parameters(), *statistics_])


@torch.no_grad()
def output_megabytes(model: nn.Module, images: Tensor) -> float:
    """MB of the outputs of all layers and of the upsampled logits."""
    sizes = []
    leaves = [m for m in model.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(lambda _, __, out: sizes.append(out.nbytes)) for m in leaves]
    sizes.append(model(images).nbytes)
    for hook in hooks:
        hook.remove()
    return sum(sizes) / 1e6


@torch.no_grad()
def frames_per_second(model: nn.Module, images: Tensor, runs: int) -> float:
    """Frames per second of the median forward pass, after two passes to warm up."""
    times = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        model(images).argmax(1)
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1 / statistics.median(times[2:])


def main() -> None:
    """Measure every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs=2, type=int, default=[1024, 2048], metavar=("H", "W"))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--record", action="store_true", help="write into results.json")
    args = parser.parse_args()
    images = torch.rand(1, 3, *args.size, device=args.device)
    measured = {}
    for name, kwargs in ROWS.items():
        model = build_low_cost_segmenter(**kwargs).eval().to(args.device)
        fps = round(frames_per_second(model, images, args.runs), 2)
        memory = round(output_megabytes(model, images), 2)
        parameters = count_parameters(model)
        speeds = [fps, None] if args.device == "cuda" else [None, fps]
        measured[name] = [*speeds, memory, parameters]
        print(f"{name:22s} {fps:8.2f} frames/s {memory:9.2f} MB {parameters:9,d} parameters")
    if args.record:
        record(Path(__file__).with_name("results.json"), "table4_2", measured)


if __name__ == "__main__":
    main()
