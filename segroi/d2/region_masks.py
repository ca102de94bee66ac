"""Masks in regions other than the boxes, where Detectron2 pastes masks into boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import BitMasks
from detectron2.structures.masks import ROIMasks
from torch import Tensor

from segroi.layers.masks import paste_masks


class RegionMasks(ROIMasks):
    """Mask logits of any height and width, each in a region of its own.

    Detectron2's post-processing (``detector_postprocess``) asks any ``ROIMasks`` to paste itself
    into the boxes; these go into their regions instead, so that a mask may leave its box.

    Args:
        logits: K tensors ``Tensor[h, w]``.
        regions: ``Tensor[K, 4]`` xyxy in units of the image.
    """

    def __init__(self, logits: Sequence[Tensor], regions: Tensor) -> None:
        if len(logits) != len(regions):
            raise ValueError(
                f"RegionMasks: logits must be {len(regions)} tensors, got {len(logits)}"
            )
        self.logits, self.regions = list(logits), regions

    def to(self, *args: Any, **kwargs: Any) -> RegionMasks:
        """The same on another device."""
        moved = [x.to(*args, **kwargs) for x in self.logits]
        return RegionMasks(moved, self.regions.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        """Where the regions are."""
        return self.regions.device

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, item: int | slice | Tensor) -> RegionMasks:
        rows = torch.arange(len(self), device=self.device)[item].reshape(-1)
        return RegionMasks([self.logits[i] for i in rows.tolist()], self.regions[rows])

    def __repr__(self) -> str:
        return f"RegionMasks(num_instances={len(self)})"

    def to_bitmasks(
        self, boxes: object, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Paste into an image; ``boxes`` is part of Detectron2's call and does not count."""
        regions = self.regions * self.regions.new_tensor([width, height, width, height])
        out = torch.zeros(len(self), height, width, dtype=torch.bool, device=self.device)
        limit = float(torch.logit(torch.tensor(threshold)))
        shapes: dict[torch.Size, list[int]] = {}
        for row, logits in enumerate(self.logits):
            shapes.setdefault(logits.shape, []).append(row)
        for rows in shapes.values():
            stack = torch.stack([self.logits[i] for i in rows])
            out[rows] = paste_masks(stack, regions[rows], (height, width), limit)
        return BitMasks(out)
