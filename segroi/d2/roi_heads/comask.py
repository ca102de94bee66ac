"""CoMask's RoI heads: classify the proposals, then let boxes and masks help each other."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, select_foreground_proposals
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Boxes, Instances
from torch import Tensor

from segroi.d2.roi_heads.extractor_heads import ExtractorROIHeads
from segroi.layers.dense_boxes import jitter_boxes
from segroi.modeling.heads.collaborative import (
    CollaborativeHead,
    CollaborativeOutput,
    average_boxes,
    collaborative_losses,
)

BOX_SOURCES = ("collaborative", "uniform", "fc")


class ClassificationOutputLayers(FastRCNNOutputLayers):
    """Detectron2's box predictor without the box regression: detections keep their proposals."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of ``FastRCNNOutputLayers``."""
        super().__init__(*args, **kwargs)
        del self.bbox_pred

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores ``Tensor[K, C + 1]`` and deltas of zero, class-agnostic."""
        scores = self.cls_score(x.flatten(1))
        return scores, scores.new_zeros(len(x), 4, dtype=torch.float32)

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """The loss of the classes alone."""
        return {"loss_cls": super().losses(predictions, proposals)["loss_cls"]}


@ROI_MASK_HEAD_REGISTRY.register()
class CollaborativeMaskHead(CollaborativeHead):
    """:class:`~segroi.modeling.heads.collaborative.CollaborativeHead` from ``MODEL.COMASK``."""

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """Take the arguments of ``CollaborativeHead``."""
        super().__init__(**kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read ``MODEL.COMASK``."""
        node = cfg.MODEL.COMASK
        return {
            "in_channels": input_shape.channels,
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dim": node.CONV_DIM,
            "num_convs": node.NUM_CONVS,
            "norm_groups": node.NORM_GROUPS,
            "background_channel": node.BACKGROUND_CHANNEL,
            "offset_bias": node.OFFSET_BIAS,
        }


@ROI_HEADS_REGISTRY.register()
class CoMaskROIHeads(ExtractorROIHeads):
    """RoI heads of CoMask (section 3.2).

    Proposals are classified on 7x7 features and thinned out by NMS. The collaborative head looks at
    14x14 features of those that remain, gives each a coarse mask and a box for every cell, and the
    boxes are averaged by the mask's confidence. A second look, at the averaged box, gives the mask.

    Lazily: ``model.roi_heads._target_ = CoMaskROIHeads`` with a
    :class:`~segroi.modeling.heads.collaborative.CollaborativeHead` as ``mask_head`` and
    :class:`ClassificationOutputLayers` as ``box_predictor`` (Detectron2's own for ``box="fc"``).
    """

    @configurable
    def __init__(
        self,
        *,
        box: str = "collaborative",
        threshold: float = 0.5,
        offset_loss_weight: float = 2.0,
        mask_loss_weight: float = 1.0,
        average_loss_weight: float = 0.0,
        jitter: float = 0.15,
        max_positives: int = 192,
        **kwargs: Any,
    ) -> None:
        """Hold what the collaborative head needs beside itself.

        Args:
            box: one of ``BOX_SOURCES``; see ``MODEL.COMASK.BOX``.
            threshold: foreground confidence that a cell must exceed to take part in the average.
            offset_loss_weight: weight of the cells' IoU loss.
            mask_loss_weight: weight of the mask loss.
            average_loss_weight: weight of the averaged box's IoU loss, 0 for none.
            jitter: part of their sides by which positive proposals move and change.
            max_positives: positive proposals of the batch that train the head.
            **kwargs: arguments of ``StandardROIHeads``.

        Raises:
            ValueError: if ``box`` is unknown.
        """
        super().__init__(**kwargs)
        if box not in BOX_SOURCES:
            raise ValueError(f"CoMaskROIHeads: box must be one of {BOX_SOURCES}, got {box!r}")
        if not self.mask_on:
            raise ValueError("CoMaskROIHeads: there is no CoMask without masks, set MODEL.MASK_ON")
        self.box, self.threshold = box, threshold
        self.loss_weights = {
            "offset_weight": 0.0 if box == "fc" else offset_loss_weight,
            "mask_weight": mask_loss_weight,
            "average_weight": 0.0 if box == "fc" else average_loss_weight,
        }
        self.keep_dense_boxes = False  # for pictures: see `refine_boxes`
        self.jitter, self.max_positives = jitter, max_positives

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.COMASK``."""
        node = cfg.MODEL.COMASK
        return {
            **super().from_config(cfg, input_shape),
            "box": node.BOX,
            "threshold": node.THRESHOLD,
            "offset_loss_weight": node.OFFSET_LOSS_WEIGHT,
            "average_loss_weight": node.AVERAGE_LOSS_WEIGHT,
            "jitter": node.JITTER,
            "max_positives": node.MAX_POSITIVES,
        }

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        layers = (
            FastRCNNOutputLayers if cfg.MODEL.COMASK.BOX == "fc" else ClassificationOutputLayers
        )
        predictor = layers(cfg, parts["box_head"].output_shape)
        predictor.loss_weight = {
            **predictor.loss_weight,
            "loss_cls": cfg.MODEL.COMASK.CLS_LOSS_WEIGHT,
        }
        return {**parts, "box_predictor": predictor}

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        result = super()._forward_box(features, proposals)
        if not self.training and self.box != "fc":
            self.refine_boxes(features, result)
        return result

    def refine_boxes(self, features: dict[str, Tensor], detections: list[Instances]) -> None:
        """Replace the boxes of classified detections by the average of their dense boxes.

        Args:
            features: feature maps by name.
            detections: with ``pred_boxes`` and ``pred_classes``. With ``keep_dense_boxes`` they
                gain ``dense_boxes`` ``Tensor[K, P, 4]`` (px of the network's input) and their
                weights ``dense_weights`` ``Tensor[K, P]``.
        """
        output = self._collaborate(features, [d.pred_boxes for d in detections])
        rois = cat([d.pred_boxes.tensor for d in detections])
        averages = average_boxes(
            output,
            rois,
            cat([d.pred_classes for d in detections]),
            collaborative=self.box == "collaborative",
            threshold=self.threshold,
        )
        split = [value.split([len(d) for d in detections]) for value in averages]
        for detection, average, dense, weights in zip(detections, *split):
            detection.pred_boxes = Boxes(average)
            detection.pred_boxes.clip(detection.image_size)
            if self.keep_dense_boxes:
                detection.dense_boxes, detection.dense_weights = dense, weights

    def _forward_mask(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if self.training:
            return self._losses(features, self._sample_positives(instances))
        output = self._collaborate(features, [x.pred_boxes for x in instances])
        mask_rcnn_inference(output.mask_logits, instances)
        return instances

    def _collaborate(self, features: dict[str, Tensor], boxes: list[Boxes]) -> CollaborativeOutput:
        return self.mask_head(self.mask_pooler([features[f] for f in self.mask_in_features], boxes))

    @torch.no_grad()
    def _sample_positives(self, proposals: list[Instances]) -> list[Instances]:
        """Positive proposals, at most ``max_positives`` of the batch, jittered."""
        positives, _ = select_foreground_proposals(proposals, self.num_classes)
        sizes = [len(p) for p in positives]
        keep = torch.zeros(sum(sizes), dtype=torch.bool)
        keep[torch.randperm(sum(sizes))[: self.max_positives]] = True
        sampled = []
        for proposal, kept in zip(positives, keep.split(sizes)):
            proposal = proposal[kept.nonzero().flatten().to(proposal.gt_classes.device)]
            boxes = proposal.proposal_boxes.tensor
            proposal.proposal_boxes = Boxes(jitter_boxes(boxes, self.jitter, proposal.image_size))
            sampled.append(proposal)
        return sampled

    def _losses(self, features: dict[str, Tensor], positives: list[Instances]) -> dict[str, Tensor]:
        output = self._collaborate(features, [p.proposal_boxes for p in positives])
        # An image without ground truth has no gt fields; it has no positives either.
        found = [p for p in positives if len(p)]
        side = output.mask_logits.shape[-1]
        empty = output.offsets.new_zeros
        rois = cat([empty(0, 4), *(p.proposal_boxes.tensor for p in found)])
        gt_boxes = cat([empty(0, 4), *(p.gt_boxes.tensor for p in found)])
        gt_classes = cat([empty(0, dtype=torch.int64), *(p.gt_classes for p in found)])
        masks = [p.gt_masks.crop_and_resize(p.proposal_boxes.tensor, side) for p in found]
        gt_masks = cat([empty(0, side, side), *(m.to(rois.device, rois.dtype) for m in masks)])
        return collaborative_losses(
            output,
            rois,
            gt_boxes,
            gt_classes,
            gt_masks,
            threshold=self.threshold,
            **self.loss_weights,
        )
