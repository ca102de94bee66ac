"""Arithmetic of polygons and run-length codes, many at a time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as rle_codec


class Polygons:
    """Polygons of many annotations in one flat array; points are (x, y) in px."""

    def __init__(self) -> None:
        self.values = array("d")
        self.starts: list[int] = []
        self.owners: list[int] = []

    def add(self, owner: int, polygon: Sequence[float]) -> bool:
        """Append one, of an even count of numbers; False (and nothing) if some are none."""
        start = len(self.values)
        try:
            self.values.extend(polygon)
        except TypeError:
            del self.values[start:]
            return False
        self.starts.append(start // 2)
        self.owners.append(owner)
        return True

    def points(self) -> np.ndarray:
        """``float64 [P, 2]``."""
        return np.frombuffer(self.values, np.float64).reshape(-1, 2)

    def bounds(self) -> np.ndarray:
        """``float64 [K, 4]``: xyxy of each polygon."""
        if not self.starts:
            return np.zeros((0, 4))
        points = self.points()
        low = np.minimum.reduceat(points, self.starts)
        return np.concatenate([low, np.maximum.reduceat(points, self.starts)], axis=1)

    def areas(self) -> np.ndarray:
        """``float64 [K]``: area of each polygon (shoelace formula)."""
        if not self.starts:
            return np.zeros(0)
        points = self.points()
        following = np.arange(1, len(points) + 1)
        ends = np.array([*self.starts[1:], len(points)])
        following[ends - 1] = self.starts
        x, y = points.T
        cross = x * y[following] - x[following] * y
        return np.abs(np.add.reduceat(cross, self.starts)) / 2

    def polygon(self, index: int) -> np.ndarray:
        """``float64 [n, 2]``: the points of one."""
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.values) // 2
        return self.points()[self.starts[index] : end]


def is_flat(points: np.ndarray) -> bool:
    """Whether all points ``float64 [n, 2]`` lie on one line."""
    offset = points - points[0]
    far = offset[np.argmax((offset**2).sum(1))]
    return bool(np.abs(offset @ np.array([far[1], -far[0]])).max() < 1e-6 * max(far @ far, 1.0))


def rle_bounds(codes: Sequence[dict], sizes: Sequence[Sequence[float]]) -> np.ndarray:
    """``float64 [K, 4]``: xyxy around the pixels of sound run-length codes, px.

    Args:
        codes: K masks with "size" and "counts", compressed or not.
        sizes: (width, height) of each.
    """
    packed = [
        rle_codec.frPyObjects(dict(code), int(size[1]), int(size[0]))
        if isinstance(code["counts"], list)
        else code
        for code, size in zip(codes, sizes)
    ]
    boxes = np.array(rle_codec.toBbox(packed), np.float64).reshape(-1, 4) if packed else []
    bounds = np.zeros((len(packed), 4))
    if packed:
        bounds[:, :2], bounds[:, 2:] = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return bounds


def crosses_itself(points: np.ndarray, most: int = 2000) -> bool:
    """Whether two edges of a closed polygon that are not neighbours cross.

    Touching is no crossing: annotators let a line run back on itself.

    Args:
        points: ``float64 [n, 2]`` (x, y).
        most: polygons with more points are taken as sound (the work is n^2).
    """
    count = len(points)
    if count < 4 or count > most:
        return False
    ends = np.roll(points, -1, axis=0)
    edges = ends - points
    # side[i, j]: on which side of edge i the point j lies.
    offset = points[None] - points[:, None]
    side = edges[:, None, 0] * offset[..., 1] - edges[:, None, 1] * offset[..., 0]
    parted = side * np.roll(side, -1, axis=1) < 0  # edge j has an end on either side of line i
    return bool(np.any(parted & parted.T))


def rle_runs(counts: str | bytes | Sequence[int]) -> list[int] | None:
    """Lengths of the runs of a COCO run-length code; None where it is none.

    Args:
        counts: the code's "counts": COCO's compressed text, or the lengths themselves.
    """
    if isinstance(counts, list | tuple):
        good = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts)
        return list(counts) if good else None
    if not isinstance(counts, str | bytes):
        return None
    runs: list[int] = []
    value, shift = 0, 0
    for code in counts.encode("utf-8") if isinstance(counts, str) else counts:
        bits = code - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return None
        value, shift = 0, 0
    return runs if shift == 0 else None
