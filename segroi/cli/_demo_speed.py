"""A short timing of the RoI operators against torchvision's, for the demo's report.

One image of 480x640 px, four levels of 64 channels, 200 boxes. The results are checked to be equal
before they are timed. ``scripts/benchmarks`` measures the operators thoroughly.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from segroi.ops import multi_level_roi_align

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
IMAGE = (480, 640)
ROUNDS = 3


def measure(boxes: int = 200, channels: int = 64) -> list[dict[str, object]]:
    """Rows of the speed table: what, direction, segroi's and torchvision's ms, the ratio."""
    maps, rois = _inputs(boxes, channels)
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    named = {str(level): m for level, m in enumerate(maps)}

    def one_level() -> Tensor:
        return multi_level_roi_align(maps, rois, 7, SCALES, 2, aligned=False)

    def their_one_level() -> Tensor:
        return pooler(named, [rois[:, 1:]], [IMAGE])

    def all_levels() -> Tensor:
        return multi_level_roi_align(maps, rois, 14, SCALES, 2, reduce="sum")

    def their_all_levels() -> Tensor:
        return sum(roi_align(m, rois, 14, s, 2, True) for m, s in zip(maps, SCALES))

    rows = []
    for what, ours, theirs in (
        ("one level a box, 7x7", one_level, their_one_level),
        ("sum of all levels, 14x14 (GRoIE)", all_levels, their_all_levels),
    ):
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
        rows += _rows(what, ours, theirs)
    return rows


def _inputs(boxes: int, channels: int) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    height, width = IMAGE
    maps = [
        torch.rand(1, channels, int(height * s), int(width * s), generator=generator)
        for s in SCALES
    ]
    corner = torch.rand(boxes, 2, generator=generator) * torch.tensor([width - 40.0, height - 40.0])
    # whole px: at a level's threshold torchvision's rule and eq. (1) of FPN differ by rounding
    side = 24 + 200 * torch.rand(boxes, 2, generator=generator) ** 2
    rois = torch.cat([torch.zeros(boxes, 1), corner, corner + side], 1).round()
    return [m.requires_grad_() for m in maps], rois


def _rows(
    what: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor]
) -> list[dict[str, object]]:
    rows = []
    for direction, wrap in (("forward", _forward), ("forward + backward", _both)):
        mine, other = _medians(wrap(ours), wrap(theirs))
        rows.append(
            {
                "operator": what,
                "direction": direction,
                "segroi ms": round(1e3 * mine, 2),
                "torchvision ms": round(1e3 * other, 2),
                "times as fast": round(other / mine, 2),
            }
        )
    return rows


def _forward(run: Callable[[], Tensor]) -> Callable[[], object]:
    return torch.no_grad()(run)


def _both(run: Callable[[], Tensor]) -> Callable[[], object]:
    return lambda: run().sum().backward()


def _medians(*runs: Callable[[], object]) -> list[float]:
    """Median seconds of each after a warm-up; taken in turns, so that load falls on all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for round_number in range(ROUNDS + 1):
        for run, seconds in zip(runs, times):
            start = time.perf_counter()
            run()
            if round_number:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]
