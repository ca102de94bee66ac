"""One box out of many, each weighted by its confidence.

Legend: K instances, P boxes an instance.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_box_average(boxes: Tensor, weights: Tensor, threshold: float | None = 0.5) -> Tensor:
    """Average the boxes of each instance, weighted by foreground confidence (CoMask, eq. 8-9).

    Boxes whose weight does not exceed ``threshold`` are left out. Where that leaves no box, all
    boxes count with their own weights, and where all of those are zero, they count equally; so
    every instance has a finite box. The result is differentiable in ``boxes`` and ``weights``.

    Args:
        boxes: float ``Tensor[K, P, 4]``, any coordinates in which a mean has a meaning (xyxy px).
        weights: ``Tensor[K, P]``, not negative.
        threshold: the smallest confidence (exclusive) that takes part; ``None`` for all.

    Returns:
        ``Tensor[K, 4]`` of the dtype of ``boxes``.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 8.0, 8.0]]])
        >>> weighted_box_average(boxes, torch.tensor([[0.6, 0.9]])).round(decimals=2)
        tensor([[1.2000, 1.2000, 6.4000, 6.4000]])
    """
    if boxes.dim() != 3 or boxes.shape[-1] != 4 or weights.shape != boxes.shape[:-1]:
        raise ValueError(
            "weighted_box_average: boxes must be Tensor[K, P, 4] and weights Tensor[K, P], "
            f"got {list(boxes.shape)} and {list(weights.shape)}"
        )
    weights = weights.to(boxes.dtype)
    chosen = weights
    if threshold is not None:
        confident = weights * (weights > threshold)
        chosen = torch.where(confident.sum(1, keepdim=True) > 0, confident, weights)
    chosen = torch.where(chosen.sum(1, keepdim=True) > 0, chosen, torch.ones_like(chosen))
    return ((chosen / chosen.sum(1, keepdim=True))[..., None] * boxes).sum(1)
