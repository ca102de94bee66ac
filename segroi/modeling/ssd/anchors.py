"""Default boxes of SSD, as the TensorFlow Object Detection API generates them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ASPECTS = (1.0, 2.0, 0.5, 3.0, 0.3333)  # width / height


def anchor_sides(
    maps: int, min_scale: float = 0.2, max_scale: float = 0.95
) -> list[list[tuple[float, float]]]:
    """(height, width) of the anchors of each map, in units of the image.

    The scales of the maps are spaced evenly; a map also has a square anchor of the geometric mean
    of its scale and the next. The finest map has three anchors only, the square one small.
    """
    step = (max_scale - min_scale) / max(maps - 1, 1)
    scales = [min_scale + step * k for k in range(maps)] + [1.0]
    sides = []
    for k, (scale, following) in enumerate(zip(scales, scales[1:])):
        if k == 0:
            pairs = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            pairs = [(scale, aspect) for aspect in _ASPECTS]
            pairs.append((math.sqrt(scale * following), 1.0))
        sides.append([(s / math.sqrt(a), s * math.sqrt(a)) for s, a in pairs])
    return sides


def anchors_per_cell(maps: int) -> list[int]:
    """Number of anchors in each cell of each map: 3, 6, 6, ..."""
    return [len(sides) for sides in anchor_sides(maps)]


def ssd_anchors(map_sizes: Sequence[tuple[int, int]], device: torch.device | None = None) -> Tensor:
    """All default boxes of an image, map by map, row by row, cell by cell.

    Args:
        map_sizes: (height, width) of the maps, fine to coarse.
        device: where to put the result.

    Returns:
        float32 Tensor[A, 4] (x0, y0, x1, y1) in units of the image, not clipped.
    """
    boxes = []
    for (height, width), sides in zip(map_sizes, anchor_sides(len(map_sizes))):
        y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).view(-1, 1, 2).flip(-1)
        half = torch.tensor(sides, dtype=torch.float64).flip(-1) / 2
        boxes.append(torch.cat([centre - half, centre + half], dim=-1).view(-1, 4))
    return torch.cat(boxes).float().to(device)
