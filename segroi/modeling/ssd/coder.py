"""Boxes relative to anchors (Faster R-CNN's encoding, scaled by 10 and 5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_MAX_LOG_RATIO = math.log(1000.0)  # a side grows at most a thousandfold: no overflow, no NaN


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets Tensor[..., 4] (x, y, log w, log h) of ``boxes`` to ``anchors``, both xyxy."""
    centre, sides = _centres(boxes)
    anchor_centre, anchor_sides = _centres(anchors)
    shift = (centre - anchor_centre) / anchor_sides
    scale = (sides.clamp(min=1e-8) / anchor_sides).log()
    return torch.cat([shift, scale], dim=-1) * boxes.new_tensor(_WEIGHTS)


def decode_boxes(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes Tensor[..., 4] xyxy of offsets to ``anchors``; the inverse of :func:`encode_boxes`."""
    anchor_centre, anchor_sides = _centres(anchors)
    offsets = offsets / offsets.new_tensor(_WEIGHTS)
    centre = anchor_centre + offsets[..., :2] * anchor_sides
    half = offsets[..., 2:].clamp(max=_MAX_LOG_RATIO).exp() * anchor_sides / 2
    return torch.cat([centre - half, centre + half], dim=-1)
