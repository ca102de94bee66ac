"""SSD-ISB for one image, free of branches that depend on the values of tensors.

Every branch runs on the boxes that it takes and on one more, for extractors and runtimes treat no
box at all apart. The results are those of :class:`~segroi.modeling.ssd.ssd_isb.SSDISB`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image

from segroi.layers.masks import interpolation_weights
from segroi.modeling.ssd.branches import BranchMasks, resized_crops, with_coordinates
from segroi.modeling.ssd.coder import decode_boxes
from segroi.modeling.ssd.detector import SSDOutput
from segroi.modeling.ssd.ssd_isb import SSDISB
from segroi.ops.reference.encompass_crop import encompassing_boxes
from segroi.tv.export.rcnn import best_survivors, image_size


class ExportableSSDISB(nn.Module):
    """A model of :func:`segroi.tv.ssd_isb.build_ssd_isb` as a function of one image.

    Args:
        model: the trained model; its modules are shared.
    """

    outputs = ("boxes", "labels", "scores", "masks", "regions")

    def __init__(self, model: SSDISB) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detections in one image.

        Args:
            image: float32 Tensor[3, H, W] in 0..1.

        Returns:
            ``boxes`` Tensor[N, 4] xyxy px, ``labels`` int64 Tensor[N], ``scores`` Tensor[N],
            ``masks`` bool Tensor[N, 1, H, W] and ``regions`` Tensor[N, 4] xyxy px, in which they
            lie; N may be 0.
        """
        full = image_size(image)
        output = self.model.detector(self.model.preprocess([image]))
        unit, scores, labels = self._detect(output)
        pixels = unit.new_ones(()) * full[1], unit.new_ones(()) * full[0]
        frame = torch.stack(pixels * 2)
        masks, regions, rows = [], [], []
        for part in self._segment(output, unit):
            region = part.regions * (frame / self._input(unit))
            masks.append(_paste(part.of_class(labels), region, full))
            regions.append(region)
            rows.append(part.index)
        chosen, order = torch.cat(rows).sort()
        masks, regions = torch.cat(masks)[order][:, None], torch.cat(regions)[order]
        return unit[chosen] * frame, labels[chosen], scores[chosen], masks, regions

    def _input(self, like: Tensor) -> Tensor:
        height, width = self.model.image_size
        return like.new_tensor([width, height, width, height])

    def _detect(self, output: SSDOutput) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes in units of the image, scores and labels, best first."""
        ssd = self.model.detector
        boxes = clip_boxes_to_image(decode_boxes(output.offsets[0], output.anchors), (1, 1))
        logits = output.logits[0]
        scores = logits.softmax(-1) if ssd.classification == "softmax" else logits.sigmoid()
        labels = torch.arange(1, logits.shape[1], device=logits.device)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        kept = (scores[:, 1:] > ssd.score_threshold) & (area > 0)[:, None]
        classes = len(labels)
        return best_survivors(
            boxes[:, None].expand(-1, classes, -1).flatten(0, 1),
            scores[:, 1:].flatten(),
            labels.expand(len(boxes), -1).flatten(),
            kept.flatten(),
            ssd.nms_threshold,
            (1, 1),
            ssd.detections_per_image,
        )

    def _segment(self, output: SSDOutput, unit: Tensor) -> list[BranchMasks]:
        branches, size = self.model.branches, self.model.image_size
        maps = self.model.segmented_maps(output)
        grid = tuple(maps[0].shape[-2:])
        # The first box is the one more.
        boxes = torch.cat([unit.new_tensor([[0.0, 0.0, 1.0, 1.0]]), unit]) * self._input(unit)
        cells = encompassing_boxes(boxes, size, grid, zero_invalid=True)
        cell = boxes.new_tensor([size[1] / grid[1], size[0] / grid[0]] * 2)
        family = branches.family
        image = torch.zeros_like(cells[:, 0])
        branch = family.assign(cells)[1:]
        # `within_budget` of one image and few boxes, without the sorting that runtimes do not have
        before = (branch[:, None] == branch).tril(diagonal=-1).sum(dim=1)
        branch = torch.where(before < family.budget, branch, -1)
        masks = []
        for b, (shape, exact) in enumerate(zip(family.shapes, family.exact)):
            taken = (branch == b).nonzero()[:, 0]
            rows = F.pad(taken + 1, (1, 0))
            crop = _cut if exact else resized_crops
            crops = crop(maps, cells[rows], image[rows], shape)
            regions = cells[rows] * cell
            if branches.condition_on_box:
                crops = [with_coordinates(c, regions, boxes[rows]) for c in crops]
            logits = branches.branches[b](crops)[1:]
            masks.append(BranchMasks(taken, logits, regions[1:]))
        return masks


def _cut(
    maps: Sequence[Tensor], cells: Tensor, image: Tensor, shape: tuple[int, int]
) -> list[Tensor]:
    """Crops of boxes that have the branch's own shape, by plain indices; what leaves is cut off."""
    crops = []
    for features in maps:
        factor = int(features.shape[-1] // maps[0].shape[-1])
        y, x = (
            (cells[:, 1 - axis, None] * factor + torch.arange(shape[axis] * factor)).clamp(
                max=features.shape[2 + axis] - 1
            )
            for axis in (0, 1)
        )
        crops.append(features[0][:, y[:, :, None], x[:, None, :]].transpose(0, 1))
    return crops


def _paste(logits: Tensor, regions: Tensor, size: Sequence[int]) -> Tensor:
    """As :func:`~segroi.layers.masks.paste_masks` over the whole image."""
    rows, inside_y = interpolation_weights(
        regions[:, 1], regions[:, 3], 0, size[0], logits.shape[1]
    )
    columns, inside_x = interpolation_weights(
        regions[:, 0], regions[:, 2], 0, size[1], logits.shape[2]
    )
    values = rows @ logits @ columns.transpose(1, 2)
    return (values > 0) & inside_y[:, :, None] & inside_x[:, None, :]
