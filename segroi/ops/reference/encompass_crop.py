"""Encompassing boxes and integer crops in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GRID_TOLERANCE = 1e-6  # cells; a corner this close to a grid line lies on it


def encompassing_boxes(
    boxes: Tensor, image_size: Sequence[int], grid_size: Sequence[int], zero_invalid: bool = False
) -> Tensor:
    """Cells of the smallest grid-aligned boxes that contain ``boxes``."""
    if min(*image_size, *grid_size) <= 0:
        raise ValueError(
            "encompassing_boxes: image_size and grid_size must be positive, got "
            f"{tuple(image_size)} and {tuple(grid_size)}"
        )
    finite = boxes.isfinite().all(dim=1)
    if not zero_invalid and not finite.all():
        raise ValueError(f"encompassing_boxes: boxes must be finite, got {boxes[~finite][0]}")
    height, width = image_size
    rows, columns = grid_size
    corners = torch.where(finite[:, None], boxes, 0).double()
    image, grid = corners.new_tensor([width, height]), corners.new_tensor([columns, rows])
    low = (corners[:, :2] * grid / image + GRID_TOLERANCE).floor()
    high = (corners[:, 2:] * grid / image - GRID_TOLERANCE).ceil()
    low = low.clamp(min=0).minimum(grid - 1)
    high = high.maximum(low + 1).minimum(grid)
    return torch.where(finite[:, None], torch.cat([low, high], dim=1).long(), 0)


def stack_rows(branch: Tensor, rows: Sequence[int], zero_invalid: bool = False) -> Tensor:
    """The box that each row of each stack shows, -1 for none."""
    if any(n < 0 for n in rows):
        raise ValueError(f"stack_rows: rows must be counts, got {list(rows)}")
    source = branch.new_full((sum(rows),), -1)
    first = [sum(rows[:s]) for s in range(len(rows))]
    used = [0] * len(rows)
    for k, s in enumerate(branch.tolist()):
        if s == -1:
            continue
        fits = 0 <= s < len(rows) and used[s] < rows[s]
        if fits:
            source[first[s] + used[s]] = k
            used[s] += 1
        elif not zero_invalid:
            raise ValueError(
                "stack_rows: branch must name a stack with a free row, got branch "
                f"{s} of box {k} for stacks of {list(rows)} rows"
            )
    return source


def _valid(
    cells: list[int], image: int, images: int, grid: Sequence[int], shape: Sequence[float]
) -> bool:
    x0, y0, x1, y1 = cells
    inside = 0 <= x0 < x1 <= grid[1] and 0 <= y0 < y1 <= grid[0]
    return 0 <= image < images and inside and y1 - y0 <= shape[0] and x1 - x0 <= shape[1]


def _window(
    cells: Tensor,
    batch_index: Tensor,
    box: int,
    images: int,
    grid: Sequence[int],
    shape: Sequence[float],
    zero_invalid: bool,
) -> tuple[int, list[int]] | None:
    image, corners = int(batch_index[box]), cells[box].tolist()
    if _valid(corners, image, images, grid, shape):
        return image, corners
    if zero_invalid:
        return None
    raise ValueError(
        "encompass_crop: cells must be a non-empty box inside the grid that fits its shape, with "
        f"batch_index in range, got box {box} = {corners} of image {image}"
    )


def _slice(features: Tensor, window: tuple[int, list[int]], factor: int) -> Tensor:
    image, (x0, y0, x1, y1) = window
    return features[image, :, y0 * factor : y1 * factor, x0 * factor : x1 * factor]


def _nothing(features: Tensor, size: Sequence[int]) -> Tensor:
    """Tensor[0, *size] that depends on ``features``, which so get a gradient of zeros."""
    return features.flatten()[:0].view(0, *size)


def encompass_crop(
    features: Sequence[Tensor],
    cells: Tensor,
    batch_index: Tensor,
    source: Tensor,
    shapes: Sequence[tuple[int, int]],
    rows: Sequence[int],
    grid: tuple[int, int],
    zero_invalid: bool = False,
) -> list[Tensor]:
    """Zero-padded stacks of integer crops, ordered by shape, then by map."""
    crops = []
    channels_last = all(m.is_contiguous(memory_format=torch.channels_last) for m in features)
    channels_last = channels_last and any(not m.is_contiguous() for m in features)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    boxes = source.split(list(rows))
    for shape, stack in zip(shapes, boxes):
        for features_m in features:
            factor = features_m.shape[2] // grid[0]
            size = (features_m.shape[1], shape[0] * factor, shape[1] * factor)
            images = []
            for box in stack.tolist():
                image = features_m.new_zeros(size)
                window = None
                if box >= 0:
                    limits = (cells, batch_index, box, features_m.shape[0], grid, shape)
                    window = _window(*limits, zero_invalid)
                if window is not None:
                    crop = _slice(features_m, window, factor)
                    pad = (0, size[2] - crop.shape[2], 0, size[1] - crop.shape[1])
                    image = torch.nn.functional.pad(crop, pad)
                images.append(image)
            stacked = torch.stack(images) if images else _nothing(features_m, size)
            crops.append(stacked.contiguous(memory_format=layout))
    return crops


def encompass_crop_packed(
    features: Sequence[Tensor],
    cells: Tensor,
    batch_index: Tensor,
    grid: tuple[int, int],
    zero_invalid: bool = False,
) -> list[Tensor]:
    """The pixels of all crops, one box after the other, for each map."""
    packed = []
    for features_m in features:
        factor = features_m.shape[2] // grid[0]
        values = [_nothing(features_m, features_m.shape[1:2])]
        for box in range(len(cells)):
            limits = (cells, batch_index, box, features_m.shape[0], grid, (math.inf, math.inf))
            window = _window(*limits, zero_invalid)
            if window is not None:
                values.append(_slice(features_m, window, factor).flatten(1).t())
        packed.append(torch.cat(values))
    return packed
