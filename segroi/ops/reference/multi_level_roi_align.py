"""Plain-PyTorch multi_level_roi_align: the definition of the operator and its oracle.

Sampling is separable, so a RoI is two small matrices: out = Wy F Wx^T.

Shape legend: N images, C channels, H x W cells of a map, L levels, K RoIs, h x w bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_SAMPLES = 2**20


def multi_level_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
    reduce: str = "select",
    levels: Tensor | None = None,
    canonical_size: float = 224,
    canonical_level: int = 4,
    on_invalid: str = "raise",
) -> Tensor:
    """Pool RoI by RoI; arguments as in ``segroi.ops.multi_level_roi_align``."""
    invalid = invalid_rois(rois, levels, features[0].shape[0], len(features))
    if on_invalid == "raise" and bool(invalid.any()):
        raise ValueError(invalid_text(rois, levels, features[0].shape[0], len(features), invalid))
    wide = torch.promote_types(features[0].dtype, torch.float32)
    maps = [f.to(wide) for f in features]
    boxes = rois[:, 1:].to(torch.promote_types(rois.dtype, wide))
    if levels is None:
        levels = box_levels(rois, spatial_scales, canonical_size, canonical_level)
    outputs = []
    for k in range(len(rois)):
        sources = range(len(maps)) if reduce != "select" else [0 if invalid[k] else int(levels[k])]
        pooled = [
            maps[level].new_zeros(maps[level].shape[1], *output_size)
            if invalid[k]
            else pool_box(
                maps[level][int(rois[k, 0])],
                boxes[k],
                output_size,
                spatial_scales[level],
                sampling_ratio,
                aligned,
            )
            for level in sources
        ]
        outputs.append(_aggregate(pooled, reduce))
    if not outputs:
        empty = _aggregate([m.new_zeros(m.shape[1], *output_size) for m in maps], reduce)
        if reduce == "select":
            empty = maps[0].new_zeros(maps[0].shape[1], *output_size)
        result = empty.new_zeros(0, *empty.shape)
    else:
        result = torch.stack(outputs)
    zero = sum(m[:0].sum() for m in maps) + boxes[:0].sum().to(wide)  # every input has a gradient
    return (result + zero).to(features[0].dtype)


def _aggregate(pooled: list[Tensor], reduce: str) -> Tensor:
    if reduce == "select":
        return pooled[0]
    if reduce == "stack":
        return torch.stack(pooled)
    return torch.cat(pooled) if reduce == "concat" else torch.stack(pooled).sum(0)


def pool_box(
    feature: Tensor,
    box: Tensor,
    output_size: Sequence[int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of one box, ``Tensor[4]`` in px, on one map ``Tensor[C, H, W]``."""
    bins_h, bins_w = output_size
    wy, ys = axis_matrix(box[1], box[3], feature.shape[1], bins_h, scale, sampling_ratio, aligned)
    wx, xs = axis_matrix(box[0], box[2], feature.shape[2], bins_w, scale, sampling_ratio, aligned)
    window = feature[:, ys][:, :, xs]
    return wy.to(feature) @ (window @ wx.to(feature).T)


def axis_matrix(
    start: Tensor,
    end: Tensor,
    length: int,
    bins: int,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """Weights ``Tensor[bins, P]`` of the P pixels of one axis that are read, and their indices."""
    half = 0.5 if aligned else 0.0
    origin = start * scale - half
    extent = (end * scale - half) - origin
    if not aligned:
        extent = extent.clamp(min=1.0)
    step = extent / bins
    samples = sampling_ratio or max(1, min(int(step.detach().ceil()), MAX_SAMPLES))
    if bool(end < start):
        samples = 0
    p = torch.arange(bins, device=start.device)[:, None]
    i = torch.arange(samples, dtype=start.dtype, device=start.device)
    at = origin + p * step + (i + 0.5) * step / max(samples, 1)  # [bins, samples]
    inside = (at >= -1) & (at <= length)
    bin_of = p.expand_as(at)[inside]
    at = at[inside].clamp(0, length - 1)
    low = at.detach().floor().long()
    high = (low + 1).clamp(max=length - 1)
    part = torch.where(at > low, at - low, 0.0)  # no slope at the centre of a pixel
    pixels = torch.unique(torch.cat([low, high[part.detach() > 0]]))
    column = torch.zeros(length, dtype=torch.long, device=start.device)
    column[pixels] = torch.arange(len(pixels), device=start.device)
    weights = at.new_zeros(bins, len(pixels))
    weights = weights.index_put((bin_of, column[low]), (1 - part) / max(samples, 1), True)
    reads_high = part.detach() > 0  # a neighbour of weight 0 has no say, be it infinite or NaN
    at_high = (bin_of[reads_high], column[high[reads_high]])
    return weights.index_put(at_high, part[reads_high] / max(samples, 1), True), pixels


def box_levels(
    rois: Tensor, spatial_scales: Sequence[float], canonical_size: float, canonical_level: int
) -> Tensor:
    """Index of the map of each RoI: FPN's eq. (1), by comparing areas.

    Level l serves from sides of ``canonical_size * 2^(l - canonical_level)`` px on; the finest map
    also all smaller boxes, the coarsest all larger ones.
    """
    finest = finest_level(spatial_scales)
    width, height = (rois[:, 3:] - rois[:, 1:3]).detach().clamp(min=0).unbind(1)
    area = (width * height).double()
    levels = torch.zeros(len(rois), dtype=torch.long, device=rois.device)
    for index in range(1, len(spatial_scales)):
        side = canonical_size * 2.0 ** (finest + index - canonical_level)
        levels += area >= side * side
    return levels


def finest_level(spatial_scales: Sequence[float]) -> int:
    """The level number of the finest map: log2 of its stride, rounded."""
    return round(-math.log2(spatial_scales[0]))


def invalid_rois(rois: Tensor, levels: Tensor | None, num_images: int, num_levels: int) -> Tensor:
    """Bool ``Tensor[K]``: a coordinate is not finite, or there is no such image or level."""
    image = rois[:, 0].detach()
    exists = (image >= 0) & (image < num_images) & (image == image.floor())
    invalid = ~(exists & rois[:, 1:].detach().isfinite().all(1))
    if levels is not None:
        invalid |= (levels < 0) | (levels.long() >= num_levels)
    return invalid


def invalid_text(
    rois: Tensor, levels: Tensor | None, num_images: int, num_levels: int, invalid: Tensor
) -> str:
    """Name the first invalid RoI."""
    k = int(invalid.nonzero()[0])
    roi = rois[k].detach().tolist()
    if not bool(rois[k, 1:].isfinite().all()):
        return f"multi_level_roi_align: rois must be finite, got box {roi[1:]} at position {k}"
    if not (0 <= roi[0] < num_images and roi[0] == int(roi[0])):
        return (
            "multi_level_roi_align: rois must begin with a batch index in "
            f"[0, {num_images}), got {roi[0]} at position {k}"
        )
    return (
        f"multi_level_roi_align: levels must be in [0, {num_levels}), got {int(levels[k])} "
        f"at position {k}"
    )
