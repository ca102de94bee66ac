"""RoI heads of Grid R-CNN: one head classifies proposals, another locates their boxes by points."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from segroi.d2.convert import boxes_to_rois, rois_to_boxes
from segroi.d2.poolers import SegroiPooler
from segroi.d2.roi_heads.comask import ClassificationOutputLayers
from segroi.d2.roi_heads.extractor_heads import ExtractorROIHeads
from segroi.modeling.heads.grid_head import GridHead, decode_grid, grid_loss, grid_targets


@ROI_HEADS_REGISTRY.register()
class GridROIHeads(ExtractorROIHeads):
    """Classification on 7x7 features, then the grid head on 14x14 features of what was found.

    X. Lu et al., "Grid R-CNN", section 3. Lazily: ``_target_ = GridROIHeads`` with a
    :class:`ClassificationOutputLayers` as ``box_predictor``, a
    :class:`~segroi.modeling.heads.grid_head.GridHead` and a :class:`SegroiPooler` for it.
    """

    @configurable
    def __init__(
        self,
        *,
        grid_pooler: nn.Module,
        grid_head: GridHead,
        grid_jitter: float = 0.15,
        grid_max_rois: int = 192,
        grid_radius: int = 1,
        grid_loss_weight: float = 15.0,
        **kwargs: Any,
    ) -> None:
        """See ``StandardROIHeads``.

        Args:
            grid_pooler: pooler with the call signature of ``ROIPooler``.
            grid_head: the grid head.
            grid_jitter: in training, positive boxes move and stretch by up to this fraction.
            grid_max_rois: positive boxes that are kept for the grid head, of all images.
            grid_radius: cells around a grid point that are positive.
            grid_loss_weight: weight of the grid loss.
            kwargs: arguments of ``StandardROIHeads``.
        """
        super().__init__(**kwargs)
        self.grid_pooler = grid_pooler
        self.grid_head = grid_head
        self.grid_jitter = grid_jitter
        self.grid_max_rois = grid_max_rois
        self.grid_radius = grid_radius
        self.grid_loss_weight = grid_loss_weight

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.ROI_GRID_HEAD
        parts = super()._init_box_head(cfg, input_shape)
        pooler = SegroiPooler(cfg, input_shape, "ROI_GRID_HEAD")
        predictor = FastRCNNOutputLayers.from_config(cfg, parts["box_head"].output_shape)
        return {
            **parts,
            "box_predictor": ClassificationOutputLayers(**predictor),
            "grid_pooler": pooler,
            "grid_head": GridHead(
                pooler.out_channels,
                grid_size=node.GRID_SIZE,
                point_channels=node.POINT_CHANNELS,
                num_convs=node.NUM_CONV,
                norm_groups=node.NORM_GROUPS,
            ),
            "grid_jitter": node.JITTER,
            "grid_max_rois": node.MAX_ROIS,
            "grid_radius": node.RADIUS,
            "grid_loss_weight": node.LOSS_WEIGHT,
        }

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        maps = [features[f] for f in self.box_in_features]
        if not self.training:
            return self._relocate(maps, super()._forward_box(features, proposals))
        losses = super()._forward_box(features, proposals)
        losses["loss_grid"] = self._grid_loss(maps, proposals)
        return losses

    def _relocate(self, maps: list[Tensor], found: list[Instances]) -> list[Instances]:
        """Replace ``pred_boxes`` by the boxes that the grid points span."""
        boxes = [f.pred_boxes for f in found]
        heatmaps, _ = self.grid_head(self.grid_pooler(maps, boxes))
        located = decode_grid(torch.cat([b.tensor for b in boxes]), heatmaps)
        for instances, new in zip(found, located.split([len(b) for b in boxes])):
            instances.pred_boxes = Boxes(new)
            instances.pred_boxes.clip(instances.image_size)
        return found

    def _grid_loss(self, maps: list[Tensor], proposals: list[Instances]) -> Tensor:
        positive, _ = select_foreground_proposals(proposals, self.num_classes)
        rois = boxes_to_rois([self._jittered(p) for p in positive])
        # An image without objects has no gt_boxes, and no positive proposal either.
        truth = [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in positive]
        kept = torch.randperm(len(rois), device=rois.device)[: self.grid_max_rois].sort().values
        rois, truth = rois[kept], torch.cat(truth)[kept]
        fused, unfused = self.grid_head(self.grid_pooler(maps, rois_to_boxes(rois, len(positive))))
        targets = grid_targets(
            rois[:, 1:],
            truth,
            grid_size=self.grid_head.grid_size,
            heatmap_size=fused.shape[-1],
            radius=self.grid_radius,
        )
        return grid_loss(fused, unfused, targets, self.grid_loss_weight)

    def _jittered(self, positive: Instances) -> Boxes:
        """Positive boxes moved and stretched at random, within the image."""
        boxes = positive.proposal_boxes.tensor
        size = boxes[:, 2:] - boxes[:, :2]
        move, stretch = (torch.empty_like(size).uniform_(-1, 1) * self.grid_jitter for _ in "ms")
        centre = boxes[:, :2] + size * (0.5 + move)
        half = size * (1 + stretch) / 2
        jittered = Boxes(torch.cat([centre - half, centre + half], dim=1))
        jittered.clip(positive.image_size)
        return jittered
