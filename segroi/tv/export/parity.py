"""Does an exported file give what the model gives, and how long does each take?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

SCORE = 0.05  # detections below are not compared: among them a rounding error reorders many
_SECONDS = 5.0  # to spend on the timing of each
_TOLERANCES = {"boxes": 0.1, "scores": 1e-3, "masks": 1e-2, "pixels": 1e-3}


@dataclass
class Parity:
    """Differences between a model and its exported file on one image, and times.

    Args:
        counts: detections of the model and of the file.
        differences: the largest of each: ``unmatched`` detections, ``boxes`` in px, ``scores``,
            ``masks`` as 1 - IoU; or ``pixels``, the share of pixels with another label.
        milliseconds: medians of the model and of the file.
    """

    counts: tuple[int, int]
    differences: dict[str, float]
    milliseconds: tuple[float, float]

    @property
    def ok(self) -> bool:
        """Whether the differences are those of rounding."""
        found = self.differences
        return not found.get("unmatched") and all(
            found[name] <= bound for name, bound in _TOLERANCES.items() if name in found
        )


@torch.inference_mode()
def check_parity(model: nn.Module, exported: nn.Module, image: Tensor) -> Parity:
    """Compare on one image, then time both.

    Args:
        model: the trained model, in eval mode.
        exported: what ``load_exported`` gave.
        image: float32 ``[3, H, W]`` in 0..1.
    """
    want, got = model([image])[0], exported([image])[0]
    counts = tuple(len(next(iter(output.values()))) for output in (want, got))
    if "boxes" in want:
        differences = _compare(want, got)
    else:
        differences = {"pixels": _disagreeing(want, got)}
    times = tuple(_milliseconds(module, image) for module in (model, exported))
    return Parity(counts, differences, times)


def _compare(want: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest differences of the detections of ``want`` from their partners in ``got``."""
    rows = (want["scores"] >= SCORE).nonzero()[:, 0].tolist()
    result = {"unmatched": 0.0, "boxes": 0.0, "scores": 0.0}
    if "masks" in want:
        result["masks"] = 0.0
    for row in rows:
        same = got["labels"] == want["labels"][row]
        distance = (got["scores"] - want["scores"][row]).abs()
        overlap = box_iou(want["boxes"][row : row + 1], got["boxes"])[0] - distance
        overlap = torch.where(same, overlap, -1.0)
        partner = int(overlap.argmax()) if len(overlap) else -1
        if partner < 0 or overlap[partner] < 0.5:
            result["unmatched"] += 1
            continue
        for name in ("boxes", "scores"):
            difference = float((got[name][partner] - want[name][row]).abs().max())
            result[name] = max(result[name], difference)
        if "masks" in want:
            pair = want["masks"][row] > 0.5, got["masks"][partner] > 0.5
            union = int((pair[0] | pair[1]).sum())
            iou = int((pair[0] & pair[1]).sum()) / union if union else 1.0
            result["masks"] = max(result["masks"], 1.0 - iou)
    return result


def _disagreeing(want: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> float:
    """The largest share of pixels, over the outputs, whose values differ."""
    return max(float((want[name] != got[name]).float().mean()) for name in got)


def _milliseconds(module: nn.Module, image: Tensor) -> float:
    times: list[float] = []
    while len(times) < 3 or (sum(times) < _SECONDS and len(times) < 30):
        start = time.perf_counter()
        module([image])
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])
