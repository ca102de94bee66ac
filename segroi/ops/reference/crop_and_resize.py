"""Plain-PyTorch crop_and_resize: the definition of the operator and its oracle.

Shape legend: N images, C channels, H x W cells of the map, K boxes, h x w crop before pooling,
p pooling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def crop_and_resize(
    features: Tensor,
    boxes: Tensor,
    box_index: Tensor,
    crop_size: Sequence[int],
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
    coordinates: str = "tf",
    pool: int = 1,
    on_invalid: str = "raise",
) -> Tensor:
    """Sample, extrapolate and pool by indexing; arguments as in ``segroi.ops.crop_and_resize``."""
    height, width = features.shape[2:]
    invalid = invalid_boxes(boxes, box_index, features.shape[0])
    if on_invalid == "raise" and not torch.compiler.is_compiling() and bool(invalid.any()):
        raise ValueError(invalid_text(boxes, box_index, features.shape[0], invalid))
    wide = torch.promote_types(features.dtype, torch.float32)
    if features.shape[0] == 0:  # every index is out of range, and nothing can be gathered
        shape = (boxes.shape[0], features.shape[1], *(size // pool for size in crop_size))
        return features.new_zeros(shape) + features.sum() + boxes[:0].sum().to(features.dtype)
    boxes = torch.where(invalid[:, None], 0.0, boxes.to(torch.promote_types(boxes.dtype, wide)))
    index = torch.where(invalid, 0, box_index.long())
    y1, x1, y2, x2 = (boxes if coordinates == "tf" else boxes[:, [1, 0, 3, 2]]).unbind(1)
    rows = sample_positions(y1, y2, height, crop_size[0], coordinates)
    cols = sample_positions(x1, x2, width, crop_size[1], coordinates)
    top, bottom, ty, inside_y = axis_taps(rows, height, coordinates, method)
    left, right, tx, inside_x = axis_taps(cols, width, coordinates, method)

    def value(y: Tensor, x: Tensor) -> Tensor:  # [K, h, w, C]
        return features[index[:, None, None], :, y[:, :, None], x[:, None, :]].to(wide)

    tx, ty = (t.to(wide) for t in (tx[:, None, :, None], ty[:, :, None, None]))
    upper = lerp(value(top, left), value(top, right), tx)
    lower = lerp(value(bottom, left), value(bottom, right), tx)
    inside = (inside_y[:, :, None] & inside_x[:, None, :])[..., None]
    crops = torch.where(inside, lerp(upper, lower, ty), extrapolation_value)
    crops = crops.unflatten(2, (-1, pool)).unflatten(1, (-1, pool)).mean((2, 4))
    crops = torch.where(invalid[:, None, None, None], 0.0, crops)
    return crops.permute(0, 3, 1, 2).to(features.dtype).contiguous()


def sample_positions(start: Tensor, end: Tensor, size: int, count: int, coordinates: str) -> Tensor:
    """Where one axis is sampled, ``Tensor[K, count]`` in cells (0 is the centre of the first)."""
    i = torch.arange(count, dtype=start.dtype, device=start.device)
    start, end = start[:, None], end[:, None]
    if coordinates == "aligned":
        return (start - 0.5) + (i + 0.5) * ((end - start) / count)
    if count == 1:
        return 0.5 * (start + end) * (size - 1)
    return start * (size - 1) + i * ((end - start) * (size - 1) / (count - 1))


def axis_taps(
    position: Tensor, size: int, coordinates: str, method: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower and upper neighbour, weight of the upper one, and whether the sample counts at all.

    TensorFlow ends the map at the centres of its outer cells; RoIAlign reads up to one cell beyond
    them and clamps there.
    """
    first, last = (-1, size) if coordinates == "aligned" else (0, size - 1)
    inside = (position >= first) & (position <= last)
    position = torch.where(inside, position, 0.0).clamp(0, size - 1)
    lower = position.detach().floor()
    if method == "nearest":  # half away from zero, as roundf
        nearest = (lower + (position.detach() - lower >= 0.5)).long()
        return nearest, nearest, torch.zeros_like(position), inside
    upper = position.detach().ceil()
    return lower.long(), upper.long(), position - lower, inside


def lerp(low: Tensor, high: Tensor, t: Tensor) -> Tensor:
    """Linear interpolation in which a neighbour of weight 0 has no say, be it infinite or NaN."""
    return torch.where(t == 0, low, (1 - t) * low + t * high)


def invalid_boxes(boxes: Tensor, box_index: Tensor, num_images: int) -> Tensor:
    """Bool ``Tensor[K]``: the box is not finite, or its image does not exist."""
    outside = (box_index < 0) | (box_index.long() >= num_images)
    return ~boxes.isfinite().all(1) | outside


def invalid_text(boxes: Tensor, box_index: Tensor, num_images: int, invalid: Tensor) -> str:
    """Name the first invalid box."""
    k = int(invalid.nonzero()[0])
    if bool(boxes[k].isfinite().all()):
        return (
            f"crop_and_resize: box_index must be in [0, {num_images}), got {int(box_index[k])} "
            f"at position {k}"
        )
    return f"crop_and_resize: boxes must be finite, got {boxes[k].tolist()} at position {k}"
