"""All instance segmentation branches of a model, from boxes to mask logits.

Legend: K boxes of a batch, R boxes in one branch, C mask classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segroi.modeling.heads.instance_segmentation_branch import (
    InstanceSegmentationBranch,
    box_coordinates,
)
from segroi.modeling.ssd.families import BranchFamily, branch_family, within_budget
from segroi.ops import crop_and_resize, encompass_crop, encompassing_boxes

_POOL = 2  # resized crops are sampled at twice their size, then max-pooled
_CHUNK_BYTES = 64 << 20


@dataclass
class BranchMasks:
    """What one branch makes of its boxes."""

    index: Tensor  # int64 [R], which of the boxes
    logits: Tensor  # [R, C, h, w]
    regions: Tensor  # [R, 4] xyxy in px of the network's input: the encompassing boxes

    def of_class(self, labels: Tensor) -> Tensor:
        """Logits [R, h, w] of each box's own class.

        Args:
            labels: int Tensor[K] from 1 on, of all boxes; they do not count for one mask class.
        """
        if self.logits.shape[1] == 1:
            return self.logits[:, 0]
        rows = torch.arange(self.index.shape[0], device=self.index.device)
        return self.logits[rows, labels[self.index].long() - 1]


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
        stop_gradient: whether the branches learn alone, without a gradient into the maps.
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
        stop_gradient: bool = True,
    ) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient
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
        """Mask logits of boxes.

        Args:
            maps: the grid and as many skips as there are ``skip_channels``, coarse to fine.
            boxes: Tensor[K, 4] xyxy in px; those of an image in order of preference.
            image: int64 Tensor[K], the image of each box.
            image_size: (height, width) in px of the network's input.

        Returns:
            One entry for each branch; a box may be in none.
        """
        if self.stop_gradient:
            maps = [m.detach() for m in maps]
        grid = tuple(maps[0].shape[-2:])
        cells = encompassing_boxes(boxes, image_size, grid)
        family, count = self.family, len(self.branches)
        branch = within_budget(family.assign(cells), image, count, family.budget)
        index = [(branch == b).nonzero()[:, 0] for b in range(count)]
        cut = self._cut(maps, cells, image, index)
        height, width = (s / n for s, n in zip(image_size, grid))
        regions = cells * boxes.new_tensor([width, height, width, height])
        masks = []
        for b, (rows, shape) in enumerate(zip(index, family.shapes)):
            if len(rows) == 0 and not self.training:
                continue
            # without gradients the resized crops of few boxes at a time need to be in memory
            size = max(len(rows), 1) if self.training or b in cut else _chunk(maps, shape)
            logits = []
            for part in rows.split(size) or (rows,):
                crops = cut[b] if b in cut else resized_crops(maps, cells[part], image[part], shape)
                if self.condition_on_box:
                    crops = [with_coordinates(c, regions[part], boxes[part]) for c in crops]
                logits.append(self.branches[b](crops))
            masks.append(BranchMasks(rows, torch.cat(logits), regions[rows]))
        return masks

    def _cut(
        self, maps: list[Tensor], cells: Tensor, image: Tensor, index: list[Tensor]
    ) -> dict[int, list[Tensor]]:
        """Crops of the branches whose boxes have their own shape, all cut out by one call."""
        exact = [b for b, cut in enumerate(self.family.exact) if cut]
        if not exact:
            return {}
        rows = [len(index[b]) for b in exact]
        order = torch.cat([index[b] for b in exact])
        stack = torch.arange(len(exact), device=cells.device)
        stack = stack.repeat_interleave(torch.tensor(rows, device=cells.device))
        shapes = [self.family.shapes[b] for b in exact]
        crops = encompass_crop(maps, cells[order], image[order], shapes, stack, rows)
        return dict(zip(exact, crops))


def _chunk(maps: Sequence[Tensor], shape: tuple[int, int]) -> int:
    """Boxes whose crops, sampled at twice their size, fit in `_CHUNK_BYTES`."""
    pixels = [m.shape[1] * (m.shape[-1] // maps[0].shape[-1]) ** 2 for m in maps]
    box = maps[0].element_size() * _POOL**2 * shape[0] * shape[1] * sum(pixels)
    return max(1, _CHUNK_BYTES // box)


def resized_crops(
    maps: Sequence[Tensor], cells: Tensor, image: Tensor, shape: tuple[int, int]
) -> list[Tensor]:
    """Crops of ``shape`` cells from each map: sampled at twice the size, then max-pooled.

    Args:
        maps: the grid and finer maps, Tensor[N, C, f * H, f * W].
        cells: int64 Tensor[R, 4] (x0, y0, x1, y1) in cells of the grid.
        image: int64 Tensor[R].
        shape: (h, w) of the branch, in cells.

    Returns:
        Tensor[R, C, f * h, f * w] of each map.
    """
    crops = []
    for features in maps:
        factor = int(features.shape[-1] // maps[0].shape[-1])  # a trace has tensors here
        size = [side * factor * _POOL for side in shape]
        boxes = (cells * factor).float()
        crops.append(
            _max_pool(crop_and_resize(features, boxes, image, size, coordinates="aligned"))
        )
    return crops


def _max_pool(x: Tensor) -> Tensor:
    """2 x 2 max pool; many times faster than `F.max_pool2d` on channels last."""
    even, odd = x[..., ::_POOL, :], x[..., 1::_POOL, :]
    rows = torch.maximum(even, odd)
    return torch.maximum(rows[..., ::_POOL], rows[..., 1::_POOL])


def with_coordinates(crop: Tensor, regions: Tensor, boxes: Tensor) -> Tensor:
    """The crop and three channels more: `box_coordinates`."""
    where = box_coordinates(regions, boxes, crop.shape[2], crop.shape[3])
    return torch.cat([crop, where.to(crop.dtype)], dim=1)
