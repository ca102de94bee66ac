"""Masks in regions of an image: pasting logits, cutting targets.

Legend: K instances, h x w logits of a region, H x W px of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BYTES_PER_PIXEL = 8  # float32 values and their comparison


def paste_masks(
    logits: Tensor,
    regions: Tensor,
    image_size: tuple[int, int],
    threshold: float = 0.0,
    max_bytes: int = 1 << 28,
    out: Tensor | None = None,
    index: Tensor | None = None,
) -> Tensor:
    """Masks of whole images from logits of regions.

    Logits are interpolated bilinearly, half-pixel aligned, at the centres of the image's pixels;
    pixels whose centre lies outside the region are background. Interpolation is separable, so it is
    two small matrix products; instances are worked off in chunks of at most ``max_bytes``.

    Args:
        logits: Tensor[K, h, w].
        regions: Tensor[K, 4] (x0, y0, x1, y1) in px; may leave the image.
        image_size: (H, W).
        threshold: logits above it are foreground; 0 is a probability of 1/2.
        max_bytes: memory for intermediate values.
        out: bool Tensor[K, H, W] to write into, false where nothing is written.
        index: int64 Tensor[K], the masks of ``out`` to write, each but once; ``out`` may then
            have more than K.

    Returns:
        ``out``, or a new bool Tensor[K, H, W].
    """
    height, width = image_size
    if out is None:
        out = torch.zeros(len(logits), height, width, dtype=torch.bool, device=logits.device)
    if logits.device.type == "cpu":
        chunk = 1  # one region at a time touches the fewest pixels
    else:
        chunk = max(1, max_bytes // max(1, _BYTES_PER_PIXEL * height * width))
    logits, regions = logits.detach().float(), regions.detach().float()
    for start in range(0, len(logits), chunk):
        part = slice(start, start + chunk)
        if index is None:
            _paste_chunk(logits[part], regions[part], out[part], threshold)
        elif chunk == 1:
            place = int(index[start])
            _paste_chunk(logits[part], regions[part], out[place : place + 1], threshold)
        else:
            masks = out[index[part]]
            _paste_chunk(logits[part], regions[part], masks, threshold)
            out[index[part]] = masks
    return out


def _paste_chunk(logits: Tensor, regions: Tensor, out: Tensor, threshold: float) -> None:
    x0, y0, x1, y1 = 0, 0, out.shape[2], out.shape[1]
    if logits.device.type == "cpu":
        low = regions[:, :2].amin(dim=0).floor().tolist()
        high = regions[:, 2:].amax(dim=0).ceil().tolist()
        x0, y0 = (int(max(v, 0)) for v in low)
        x1, y1 = (int(min(v, n)) for v, n in zip(high, (x1, y1)))
        if x0 >= x1 or y0 >= y1:
            return
    rows, inside_y = interpolation_weights(regions[:, 1], regions[:, 3], y0, y1, logits.shape[1])
    columns, inside_x = interpolation_weights(regions[:, 0], regions[:, 2], x0, x1, logits.shape[2])
    values = rows @ logits @ columns.transpose(1, 2)
    out = out[:, y0:y1, x0:x1]
    if len(out) == 1:  # the pixels of one region are a rectangle
        (top, bottom), (left, right) = _extent(inside_y[0]), _extent(inside_x[0])
        rectangle = values[:, top:bottom, left:right]
        torch.gt(rectangle, threshold, out=out[:, top:bottom, left:right])
    else:
        out |= (values > threshold) & inside_y[:, :, None] & inside_x[:, None, :]


def _extent(inside: Tensor) -> tuple[int, int]:
    """Begin and end of the one run of trues."""
    begin = int(inside.int().argmax())
    return begin, begin + int(inside.sum())


def interpolation_weights(
    low: Tensor, high: Tensor, begin: int, end: int, cells: int
) -> tuple[Tensor, Tensor]:
    """Weights [K, end - begin, cells] of pixels on the cells of [low, high], and who is inside."""
    centre = torch.arange(begin, end, device=low.device, dtype=low.dtype) + 0.5
    length = (high - low).clamp(min=1e-6)[:, None]
    inside = (centre >= low[:, None]) & (centre <= high[:, None])
    position = ((centre - low[:, None]) / length * cells - 0.5).clamp(0, cells - 1)
    cell = torch.arange(cells, device=low.device, dtype=low.dtype)
    return (1 - (position[..., None] - cell).abs()).clamp(min=0), inside


def masks_in_regions(masks: Tensor, regions: Tensor, size: tuple[int, int]) -> Tensor:
    """Binary targets of regions: the masks, sampled bilinearly at h x w points, above one half.

    Args:
        masks: Tensor[K, H, W], bool or 0 and 1.
        regions: Tensor[K, 4] (x0, y0, x1, y1) in px.
        size: (h, w).

    Returns:
        float32 Tensor[K, h, w] of 0 and 1.
    """
    rows = _sampling(regions[:, 1], regions[:, 3], size[0], masks.shape[1])
    columns = _sampling(regions[:, 0], regions[:, 2], size[1], masks.shape[2])
    return ((rows @ masks.float() @ columns.transpose(1, 2)) >= 0.5).float()


def _sampling(low: Tensor, high: Tensor, samples: int, pixels: int) -> Tensor:
    """Weights [K, samples, pixels] of pixels at the centres of equal parts of [low, high]."""
    low, high = low.float(), high.float()
    steps = (torch.arange(samples, device=low.device) + 0.5) / samples
    position = low[:, None] + steps * (high - low)[:, None] - 0.5
    pixel = torch.arange(pixels, device=low.device, dtype=low.dtype)
    return (1 - (position.clamp(0, pixels - 1)[..., None] - pixel).abs()).clamp(min=0)
