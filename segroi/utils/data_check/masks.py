"""Masks of annotations: polygons and run-length codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segroi.utils.data_check.boxes import SLACK
from segroi.utils.data_check.entries import Entries
from segroi.utils.data_check.findings import Findings
from segroi.utils.data_check.geometry import (
    Polygons,
    crosses_itself,
    is_flat,
    rle_bounds,
    rle_runs,
)


def check_masks(
    entries: Entries, sizes: np.ndarray, findings: Findings, crossings: bool
) -> np.ndarray:
    """Look at the masks.

    Args:
        entries: N annotations.
        sizes: ``float64 [N, 2]``: width and height of their images, px.
        findings: where to note what is wrong.
        crossings: look for polygons that cross themselves too.

    Returns:
        ``float64 [N, 4]``: xyxy around the mask of each, NaN where there is none.
    """
    polygons = Polygons()
    codes: dict[int, dict] = {}
    for row, (position, annotation) in enumerate(entries):
        mask = annotation.get("segmentation")

        def tell(code: str, what: str, at: int = position, of: Mapping = annotation) -> None:
            findings.add(code, what, "annotation", of["id"], at)

        if not mask:
            tell("annotation-no-mask", f"segmentation is {mask!r}")
        elif isinstance(mask, list):
            for number, polygon in enumerate(mask):
                code, what = polygon_fault(polygon)
                if not code and not polygons.add(row, polygon):
                    code, what = "polygon-numbers", "some are none"
                if code:
                    tell(code, f"polygon {number}: {what}")
        elif isinstance(mask, dict):
            code, what = rle_fault(mask, sizes[row].tolist())
            if code:
                tell(code, what)
            else:
                codes[row] = mask
        else:
            tell("mask-type", f"segmentation is {type(mask).__name__}")
    bounds = _check_polygons(polygons, entries, sizes, findings, crossings)
    bounds[list(codes)] = rle_bounds(list(codes.values()), sizes[list(codes)])
    return bounds


def polygon_fault(polygon: Any) -> tuple[str, str]:
    """Code and text of what is wrong with the form of a polygon; ("", "") if nothing is."""
    if not isinstance(polygon, list):
        return "mask-type", f"is {type(polygon).__name__}, a list of x, y, x, y, ... is wanted"
    if polygon and isinstance(polygon[0], list):
        return "mask-type", "is a list of lists, a flat list of x, y, x, y, ... is wanted"
    if len(polygon) % 2:
        return "polygon-odd", f"{len(polygon)} coordinates"
    if len(polygon) < 6:
        return "polygon-short", f"{len(polygon) // 2} points"
    return "", ""


def rle_fault(mask: Mapping[str, Any], size: Sequence[float]) -> tuple[str, str]:
    """The same of a run-length code on an image of ``size`` (width, height)."""
    width, height = size
    shape = mask.get("size")
    if shape != [height, width]:
        return "rle-size", f"size is {shape}, the image has [{height:.0f}, {width:.0f}]"
    runs = rle_runs(mask.get("counts"))
    if runs is None:
        return "rle-damaged", "counts are no run lengths"
    if sum(runs) != height * width:
        return "rle-damaged", f"runs of {sum(runs)} pixels, the image has {height * width:.0f}"
    return ("", "") if sum(runs[1::2]) else ("rle-empty", "no pixel is set")


def _check_polygons(
    polygons: Polygons, entries: Entries, sizes: np.ndarray, findings: Findings, crossings: bool
) -> np.ndarray:
    owners = np.array(polygons.owners, dtype=np.int64)
    each = polygons.bounds()
    limits = sizes[owners]
    finite = np.isfinite(each).all(1)
    with np.errstate(invalid="ignore"):
        outside = (each[:, :2] < -SLACK).any(1) | (each[:, 2:] > limits + SLACK).any(1)
        flat = polygons.areas() < 1e-6
    for index in np.flatnonzero(finite & flat):  # or as much of it turns left as right
        flat[index] = is_flat(polygons.polygon(index))
    crossing = np.zeros(len(owners), bool)
    if crossings:
        for index in np.flatnonzero(finite & ~flat):
            crossing[index] = crosses_itself(polygons.polygon(index))
    for code, rows, what in (
        ("polygon-numbers", ~finite, "not finite"),
        ("polygon-flat", finite & flat, "no area"),
        ("polygon-outside", finite & outside, "beyond the image"),
        ("polygon-crossing", crossing, "crosses itself"),
    ):
        for index in np.flatnonzero(rows):
            position, annotation = entries[owners[index]]
            box = [round(v, 1) for v in each[index].tolist()]
            text = f"a polygon at xyxy {box} on image {annotation['image_id']}: {what}"
            findings.add(code, text, "annotation", annotation["id"], position)
    bounds = np.full((len(entries), 4), np.nan)
    np.fmin.at(bounds[:, :2], owners[finite], each[finite, :2])
    np.fmax.at(bounds[:, 2:], owners[finite], each[finite, 2:])
    return bounds
