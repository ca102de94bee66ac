#!/usr/bin/env python
"""Frames per second of CoMask with 1, 2 and 4 branches beside Mask R-CNN, with random weights.

    python projects/CoMask/speed.py [--size 800 1333] [--runs 5] [--record]

Every image is made to have 100 detections, so that all heads have the same work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from segroi.utils.project_results import record

HERE = Path(__file__).resolve().parent
CONFIGS = {
    "Mask R-CNN": model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"),
    "CoMask_1": str(HERE / "configs/comask1_R_50_FPN_2x.py"),
    "CoMask_2": str(HERE / "configs/comask2_R_50_FPN_2x.py"),
    "CoMask_4": str(HERE / "../../configs/d2/comask_R_50_FPN_2x.py"),
}


@torch.no_grad()
def frames_per_second(model: nn.Module, image: Tensor, runs: int) -> float:
    """Frames per second of the median inference, after one to warm up."""
    inputs, times = [{"image": image, "height": image.shape[1], "width": image.shape[2]}], []
    for _ in range(runs + 1):
        start = time.perf_counter()
        found = len(model(inputs)[0]["instances"])
        times.append(time.perf_counter() - start)
    if found < 90:
        raise RuntimeError(f"expected about 100 detections, got {found}")
    return 1 / statistics.median(times[1:])


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs=2, type=int, default=[800, 1333], metavar=("H", "W"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write into results.json")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image = torch.randint(0, 255, (3, *args.size), dtype=torch.uint8)
    measured = {}
    for name, file in CONFIGS.items():
        torch.manual_seed(0)
        model = instantiate(LazyConfig.load(file).model).eval().to(device)
        model.roi_heads.box_predictor.test_score_thresh = 0.0
        for norm in (m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)):
            norm.weight.fill_(0.5)  # random weights would overflow behind fifty layers
        measured[name] = [round(frames_per_second(model, image, args.runs), 3)]
        print(f"{name:12s} {measured[name][0]:7.3f} frames/s")
    if args.record:
        record(HERE / "results.json", "speed", measured)


if __name__ == "__main__":
    main()
