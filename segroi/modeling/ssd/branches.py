"""All instance segmentation branches of a model, from boxes to mask logits.

Legend: K boxes of a batch, R boxes in one branch, C mask classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segroi.modeling.heads.instance_segmentation_branch import (
    InstanceSegmentationBranch,
    box_coordinates,
)
from segroi.modeling.ssd.families import BranchFamily, branch_family, within_budget
from segroi.ops import crop_and_resize, encompass_crop, encompassing_boxes

_POOL = 2  # resized crops are sampled at twice their size, then max-pooled


@dataclass
class BranchMasks:
    """What one branch makes of its boxes."""

    index: Tensor  # int64 [R], which of the boxes
    logits: Tensor  # [R, C, h, w]
    regions: Tensor  # [R, 4] xyxy in px of the network's input: the encompassing boxes


class InstanceBranches(nn.Module):
    """Sends each box to a branch by the shape of its encompassing box (SSD-ISB, section 3.2).

    Args:
        in_channels: channels of the coarsest map (the grid).
        skip_channels: channels of the skips, coarse to fine: of maps with twice and four times the
            cells of the grid; two for FCN8, one for FCN16, none.
        family: a :class:`BranchFamily` or its name.
        shapes: other shapes for the family.
        num_classes: masks of an instance; 1 is class-agnostic.
        atrous_rates: dilation of the branches, one for all or one for each.
        condition_on_box: see :class:`InstanceSegmentationBranch`.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: Sequence[int],
        family: str | BranchFamily = "multi_shape",
        shapes: Sequence[Sequence[int]] | None = None,
        num_classes: int = 1,
        atrous_rates: int | Sequence[int] = 1,
        condition_on_box: bool = False,
    ) -> None:
        super().__init__()
        self.family = branch_family(family, shapes)
        self.condition_on_box = condition_on_box
        count = len(self.family.shapes)
        rates = [atrous_rates] * count if isinstance(atrous_rates, int) else list(atrous_rates)
        if len(rates) != count:
            raise ValueError(
                f"InstanceBranches: atrous_rates must be one or {count} numbers, got {rates}"
            )
        self.branches = nn.ModuleList(
            InstanceSegmentationBranch(
                in_channels, skip_channels, num_classes, rate, condition_on_box
            )
            for rate in rates
        )

    def forward(
        self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor, image_size: tuple[int, int]
    ) -> list[BranchMasks]:
        """Mask logits of boxes; no gradient reaches the maps.

        Args:
            maps: the grid and as many skips as there are ``skip_channels``, coarse to fine.
            boxes: Tensor[K, 4] xyxy in px; those of an image in order of preference.
            image: int64 Tensor[K], the image of each box.
            image_size: (height, width) in px of the network's input.

        Returns:
            One entry for each branch; a box may be in none.
        """
        maps = [m.detach() for m in maps]
        grid = tuple(maps[0].shape[-2:])
        cells = encompassing_boxes(boxes, image_size, grid)
        family, count = self.family, len(self.branches)
        branch = within_budget(family.assign(cells), image, count, family.budget)
        index = [(branch == b).nonzero()[:, 0] for b in range(count)]
        crops = self._cut(maps, cells, image, index)
        height, width = (s / n for s, n in zip(image_size, grid))
        regions = cells * boxes.new_tensor([width, height, width, height])
        masks = []
        for b, module in enumerate(self.branches):
            rows = index[b]
            if len(rows) == 0 and not self.training:
                continue
            inputs = crops[b]
            if self.condition_on_box:
                inputs = [_with_coordinates(c, regions[rows], boxes[rows]) for c in inputs]
            masks.append(BranchMasks(rows, module(inputs), regions[rows]))
        return masks

    def _cut(
        self, maps: list[Tensor], cells: Tensor, image: Tensor, index: list[Tensor]
    ) -> list[list[Tensor]]:
        """Crops of each branch from each map: exact shapes in one call, the others resized."""
        family = self.family
        crops: list[list[Tensor]] = [[] for _ in family.shapes]
        exact = [b for b, cut in enumerate(family.exact) if cut]
        if exact:
            rows = [len(index[b]) for b in exact]
            order = torch.cat([index[b] for b in exact])
            target = torch.repeat_interleave(
                torch.arange(len(exact), device=cells.device),
                torch.tensor(rows, device=cells.device),
                output_size=sum(rows),
            )
            shapes = [family.shapes[b] for b in exact]
            stacks = encompass_crop(maps, cells[order], image[order], shapes, target, rows)
            for b, stack in zip(exact, stacks):
                crops[b] = stack
        for b, (shape, rows_b) in enumerate(zip(family.shapes, index)):
            if b not in exact:
                crops[b] = [_resize(m, maps[0], cells[rows_b], image[rows_b], shape) for m in maps]
        return crops


def _resize(
    features: Tensor, grid: Tensor, cells: Tensor, image: Tensor, shape: tuple[int, int]
) -> Tensor:
    """Crops of ``shape`` cells: sampled at twice the size, then max-pooled."""
    factor = features.shape[-1] // grid.shape[-1]
    boxes = (cells * factor).float()
    size = [side * factor * _POOL for side in shape]
    return F.max_pool2d(crop_and_resize(features, boxes, image, size, coordinates="aligned"), _POOL)


def _with_coordinates(crop: Tensor, regions: Tensor, boxes: Tensor) -> Tensor:
    where = box_coordinates(regions, boxes, crop.shape[2], crop.shape[3])
    return torch.cat([crop, where.to(crop.dtype)], dim=1)
