"""The branches of SSD-ISB as the mask head of a two-stage model.

The thesis proposes it (section 6.2) and did not try it: "there is no reason that we could not use
parallel segmentation branches in Faster R-CNN".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn import functional as F

from segroi.d2.mask_targets import region_targets
from segroi.d2.region_masks import RegionMasks
from segroi.modeling.ssd.branches import BranchMasks, InstanceBranches


@ROI_MASK_HEAD_REGISTRY.register()
class InstanceBranchMaskHead(nn.Module):
    """Sends each box to a branch by the shape of its encompassing box on the coarsest map.

    It reads whole feature maps: ``StandardROIHeads`` hands them over where it has no mask pooler
    (``ROI_MASK_HEAD.POOLER_TYPE: ""``). Unlike SSD-ISB it learns from the foreground proposals and
    its gradient reaches the pyramid, as in Mask R-CNN. Detections beyond a branch's budget, or of
    a shape that no branch has, are left out.
    """

    @configurable
    def __init__(
        self,
        *,
        branches: InstanceBranches,
        in_features: Sequence[str],
        strides: Sequence[int],
        loss_weight: float = 1.0,
    ) -> None:
        """Build the head.

        Args:
            branches: with as many skips as there are features behind the first.
            in_features: names of the maps, coarse to fine; the first is the grid.
            strides: their strides in px.
            loss_weight: weight of the mask loss.

        Raises:
            ValueError: a stride is not half of the one before it.
        """
        super().__init__()
        if any(2 * fine != coarse for coarse, fine in zip(strides, strides[1:])):
            raise ValueError(
                f"InstanceBranchMaskHead: in_features must halve the stride from map to map, "
                f"got {list(in_features)} of strides {list(strides)}"
            )
        self.branches, self.loss_weight = branches, loss_weight
        self.in_features, self.stride = list(in_features), strides[0]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.MASK_BRANCHES``."""
        node = cfg.MODEL.MASK_BRANCHES
        if cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE:
            raise ValueError(
                "InstanceBranchMaskHead: MODEL.ROI_MASK_HEAD.POOLER_TYPE must be '' (the head cuts "
                f"its own crops), got {cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE!r}"
            )
        shapes = [input_shape[name] for name in node.IN_FEATURES]
        classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        rates = list(node.ATROUS_RATES)
        branches = InstanceBranches(
            shapes[0].channels,
            [shape.channels for shape in shapes[1:]],
            node.FAMILY,
            node.SHAPES or None,
            1 if cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK else classes,
            rates[0] if len(rates) == 1 else rates,
            node.CONDITION_ON_BOX,
            node.STOP_GRADIENT,
        )
        return {
            "branches": branches,
            "in_features": node.IN_FEATURES,
            "strides": [shape.stride for shape in shapes],
            "loss_weight": node.LOSS_WEIGHT,
        }

    def forward(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """``loss_mask`` in training, otherwise the instances with ``pred_masks``."""
        maps = [features[name] for name in self.in_features]
        size = (maps[0].shape[-2] * self.stride, maps[0].shape[-1] * self.stride)
        field = "proposal_boxes" if self.training else "pred_boxes"
        boxes = [x.get(field).tensor for x in instances]
        image = torch.cat([b.new_full((len(b),), n).long() for n, b in enumerate(boxes)])
        masks = self.branches(maps, torch.cat(boxes), image, size)
        if self.training:
            return {"loss_mask": self.loss_weight * _loss(masks, instances)}
        return _attach(masks, instances)


def _loss(masks: Sequence[BranchMasks], samples: Sequence[Instances]) -> Tensor:
    """Cross-entropy, averaged over the pixels of an instance, then over the instances."""
    classes = torch.cat([x.gt_classes for x in samples])
    terms = []
    for m in masks:
        logits = m.of_class(classes + 1).float()
        target = region_targets(samples, m.index, m.regions, logits.shape[-2:])
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        terms.append(loss.mean(dim=(1, 2)))
    terms = torch.cat(terms)
    return terms.sum() / max(len(terms), 1)


def _attach(masks: Sequence[BranchMasks], instances: Sequence[Instances]) -> list[Instances]:
    """The instances that have a mask, with it."""
    classes = torch.cat([x.pred_classes for x in instances])
    logits: dict[int, Tensor] = {}
    regions = torch.zeros(len(classes), 4, device=classes.device)
    for m in masks:
        logits.update(zip(m.index.tolist(), m.of_class(classes + 1)))
        regions[m.index] = m.regions.float()
    results, first = [], 0
    for found in instances:
        rows = [i for i in range(len(found)) if first + i in logits]
        height, width = found.image_size
        unit = regions[first:][rows] / regions.new_tensor([width, height, width, height])
        kept = found[torch.tensor(rows, dtype=torch.int64, device=classes.device)]
        kept.pred_masks = RegionMasks([logits[first + i] for i in rows], unit)
        results.append(kept)
        first += len(found)
    return results
