"""Boxes of annotations: each for itself, and all together (corners, or 0 to 1, by mistake)."""

from __future__ import annotations

import math

import numpy as np

from segroi.utils.data_check.entries import Entries
from segroi.utils.data_check.findings import Findings

SLACK = 2.0  # px that a box may lie beyond its image, or beside its mask
_FEW = 4  # boxes, at least, to say something about all of them


def check_boxes(
    entries: Entries, sizes: np.ndarray, bounds: np.ndarray, findings: Findings
) -> None:
    """Look at the boxes.

    Args:
        entries: N annotations.
        sizes: ``float64 [N, 2]``: width and height of their images, px.
        bounds: ``float64 [N, 4]``: xyxy around their masks, NaN where there are none.
        findings: where to note what is wrong.
    """
    boxes = np.full((len(entries), 4), np.nan)
    for row, (position, annotation) in enumerate(entries):
        box = annotation.get("bbox")
        if _is_box(box):
            boxes[row] = box
        else:
            what = "has no bbox" if box is None else f"bbox is {box!r}"
            findings.add("box-broken", what, "annotation", annotation["id"], position)
    bounds = np.clip(bounds, 0, np.concatenate([sizes, sizes], axis=1))
    with np.errstate(invalid="ignore"):
        mistake = _mistake(boxes, sizes, bounds)
        if mistake:
            findings.add(mistake, f"all {int(np.isfinite(boxes[:, 0]).sum())} boxes together")
        else:
            _check_each(entries, boxes, sizes, bounds, findings)


def corners(boxes: np.ndarray) -> np.ndarray:
    """``[N, 4]`` xywh -> xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _is_box(box: object) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in box)
        and all(map(math.isfinite, box))
    )


def _mistake(boxes: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> str:
    """The code of what is wrong with all boxes together, or ""."""
    good = np.isfinite(boxes[:, 0])
    boxes, sizes, bounds = boxes[good], sizes[good], bounds[good]
    if len(boxes) < _FEW:
        return ""
    if boxes.max() <= 1 and boxes.min() >= 0 and boxes[:, 2:].max() > 0 and sizes.min() >= 16:
        return "box-normalised"
    ordered = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= sizes + SLACK).all(1)
    if ordered.mean() < 0.95:
        return ""
    masked = np.isfinite(bounds[:, 0])
    if masked.sum() >= _FEW:
        as_corners = (np.abs(boxes - bounds).max(1) <= SLACK)[masked].mean()
        as_sizes = (np.abs(corners(boxes) - bounds).max(1) <= SLACK)[masked].mean()
        return "box-xyxy" if as_corners > 0.8 and as_sizes < 0.2 else ""
    beyond = (corners(boxes)[:, 2:] > sizes + SLACK).any(1)
    return "box-xyxy" if beyond.mean() > 0.2 else ""


def _check_each(
    entries: Entries,
    boxes: np.ndarray,
    sizes: np.ndarray,
    bounds: np.ndarray,
    findings: Findings,
) -> None:
    ends = corners(boxes)
    empty = (boxes[:, 2:] <= 0).any(1)
    outside = ~empty & ((ends[:, 2:] <= 0).any(1) | (boxes[:, :2] >= sizes).any(1))
    beyond = (ends[:, :2] < -SLACK).any(1) | (ends[:, 2:] > sizes + SLACK).any(1)
    # A mask may lie a tenth of a side beside its box: annotators draw both by hand.
    allowed = np.maximum(SLACK + 1, 0.1 * boxes[:, 2:].max(1, initial=0))
    differs = ~empty & ~outside & (np.abs(ends - bounds).max(1) > allowed)
    for code, rows in (
        ("box-empty", empty),
        ("box-outside", outside),
        ("box-beyond", beyond & ~outside & ~empty),
        ("box-differs", differs),
    ):
        for row in np.flatnonzero(rows):
            position, annotation = entries[row]
            box = [round(v, 1) for v in boxes[row].tolist()]
            what = f"bbox {box} on image {annotation['image_id']} "
            what += f"({sizes[row, 0]:.0f}x{sizes[row, 1]:.0f})"
            if code == "box-differs":
                what += f", mask at xyxy {[round(v, 1) for v in bounds[row].tolist()]}"
            findings.add(code, what, "annotation", annotation["id"], position)
