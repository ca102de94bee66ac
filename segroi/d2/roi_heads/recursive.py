"""R3-CNN, SBR-CNN and HTC: heads that refine boxes and masks in loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from segroi.d2.evaluation import MASK_SCORES
from segroi.d2.mask_targets import crop_gt_masks, gt_area_ratios
from segroi.d2.roi_heads.extractor_heads import ExtractorROIHeads
from segroi.d2.roi_heads.recursive_parts import build_mask_iou_head
from segroi.modeling.heads.mask_iou_head import MaskIoUHead, mask_iou_loss, mask_iou_targets
from segroi.modeling.heads.recursive_mask_head import ensemble_masks, mask_loop
from segroi.modeling.recursion.sampling import sample_boxes
from segroi.modeling.recursion.schedule import LoopSchedule, average_class_scores
from segroi.modeling.recursion.statistics import IoUHistogram

Losses = dict[str, Tensor]
HISTOGRAM_PERIOD = 20  # iterations between two reports of the IoU histogram


@ROI_HEADS_REGISTRY.register()
class RecursiveROIHeads(ExtractorROIHeads):
    """Box and mask heads that work in loops on boxes they refined themselves (SBR-CNN, 3.1).

    Every loop assigns the boxes at its own IoU threshold, appends the ground truth and samples,
    trains its pair of heads on the sample, and hands the refined boxes (without those born from
    ground truth) to the next loop. The mask head trains on a new sample of the refined boxes.
    Extractors, box heads, predictors and mask heads come as lists, one for each pair of heads.
    """

    @configurable
    def __init__(
        self,
        *,
        schedule: LoopSchedule,
        box_poolers: Sequence[nn.Module],
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[FastRCNNOutputLayers],
        mask_poolers: Sequence[nn.Module] | None = None,
        mask_heads: Sequence[nn.Module] | None = None,
        mask_iou_head: MaskIoUHead | None = None,
        mask_iou_weight: float = 0.5,
        mask_iou_threshold: float = 0.5,
        inference_loops: int = 0,
        score_average: str = "logits",
        mask_loop: bool = True,
        **kwargs: Any,
    ) -> None:
        """Hold the heads.

        Args:
            schedule: which pair works in which training loop, with thresholds and loss weights.
            box_poolers: ``ROIPooler`` or ``SegroiPooler`` per pair.
            box_heads: box head per pair.
            box_predictors: class-agnostic predictor per pair, with the box coder of the pair.
            mask_poolers: like ``box_poolers``, for masks.
            mask_heads: ``RecursiveMaskHead`` per pair.
            mask_iou_head: scores masks; None leaves the box score to them.
            mask_iou_weight: factor of its loss.
            mask_iou_threshold: probability from which a cell belongs to the predicted mask.
            inference_loops: loops at inference; 0 for as many as in training.
            score_average: see `average_class_scores`.
            mask_loop: whether loop t trains on t + 1 passes of the mask heads, or on one.
            kwargs: those of ``StandardROIHeads`` that remain.
        """
        for name, heads in (("box_heads", box_heads), ("mask_heads", mask_heads)):
            if heads is not None and len(heads) != schedule.num_heads:
                raise ValueError(
                    f"RecursiveROIHeads: {name} must hold {schedule.num_heads} heads for the "
                    f"stages {schedule.stages}, got {len(heads)}"
                )
        if mask_heads is not None:
            kwargs["mask_pooler"] = nn.ModuleList(mask_poolers)
            kwargs["mask_head"] = nn.ModuleList(mask_heads)
        super().__init__(
            box_pooler=nn.ModuleList(box_poolers),
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=None,  # the schedule has a threshold for each loop
            **kwargs,
        )
        self.schedule = schedule
        self.inference_stages = schedule.inference_stages(inference_loops)
        self.score_average = score_average
        self.mask_loop = mask_loop
        self.mask_iou_head = mask_iou_head
        self.mask_iou_weight = mask_iou_weight
        self.mask_iou_threshold = mask_iou_threshold
        self.iou_histogram = IoUHistogram(len(schedule.stages))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.RECURSIVE`` and ``MODEL.MASK_IOU`` beside the keys of the standard heads."""
        parts = super().from_config(cfg, input_shape)
        parts.pop("proposal_matcher")
        node = cfg.MODEL.RECURSIVE
        return {
            **parts,
            "schedule": _schedule(cfg),
            "inference_loops": node.INFERENCE_LOOPS,
            "score_average": node.SCORE_AVERAGE,
            "mask_loop": node.MASK_LOOP,
            "mask_iou_weight": cfg.MODEL.MASK_IOU.LOSS_WEIGHT,
            "mask_iou_threshold": cfg.MODEL.MASK_IOU.THRESHOLD,
        }

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        build = super()._init_box_head
        heads = [build(_head_config(cfg, h), input_shape) for h in range(_schedule(cfg).num_heads)]
        return {
            "box_in_features": heads[0]["box_in_features"],
            "box_poolers": [head["box_pooler"] for head in heads],
            "box_heads": [head["box_head"] for head in heads],
            "box_predictors": [head["box_predictor"] for head in heads],
        }

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.MASK_ON:
            return {}
        build = super()._init_mask_head
        heads = [build(_head_config(cfg, h), input_shape) for h in range(_schedule(cfg).num_heads)]
        channels = heads[0]["mask_head"].in_channels
        return {
            "mask_in_features": heads[0]["mask_in_features"],
            "mask_poolers": [head["mask_pooler"] for head in heads],
            "mask_heads": [head["mask_head"] for head in heads],
            "mask_iou_head": build_mask_iou_head(cfg, channels),
        }

    @classmethod
    def _init_keypoint_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return {}

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """See :class:`detectron2.modeling.roi_heads.ROIHeads`."""
        if self.training:
            return proposals, self._train_loops(features, proposals, targets)
        instances = self._infer_boxes(features, proposals)
        return self.forward_with_given_boxes(features, instances), {}

    def _train_loops(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> Losses:
        losses: Losses = {}
        for loop, stage in enumerate(self.schedule.stages):
            with get_event_storage().name_scope(f"loop{loop}"):
                samples = self._sample(proposals, targets, loop)
                self._log_samples(samples, loop)
                predictions = self._predict(features, samples, stage)
                loop_losses = self.box_predictor[stage].losses(predictions, samples)
                proposals = self._refine(predictions, samples, stage)
                if self.mask_on:
                    samples = self._sample(proposals, targets, loop)
                    loop_losses |= self._mask_losses(features, samples, targets, loop)
            for name, loss in loop_losses.items():
                alpha = 1.0 if name == "loss_mask_iou" else self.schedule.loss_weights[loop]
                losses[f"{name}_loop{loop}"] = alpha * loss
        return losses

    @torch.no_grad()
    def _sample(
        self, proposals: list[Instances], targets: list[Instances], loop: int
    ) -> list[Instances]:
        """Assign at the threshold of the loop, append the ground truth and draw a sample."""
        return [
            self._sample_image(boxes.proposal_boxes.tensor, target, loop)
            for boxes, target in zip(proposals, targets)
        ]

    def _sample_image(self, boxes: Tensor, target: Instances, loop: int) -> Instances:
        drawn = sample_boxes(
            boxes,
            target.gt_boxes.tensor,
            target.gt_classes,
            iou_threshold=self.schedule.iou_thresholds[loop],
            num_classes=self.num_classes,
            num_samples=self.batch_size_per_image,
            positive_fraction=self.positive_fraction,
        )
        sample = Instances(target.image_size, proposal_boxes=Boxes(drawn.boxes))
        sample.gt_classes, sample.from_gt, sample.iou = drawn.classes, drawn.from_gt, drawn.iou
        if len(target):
            sample.gt_index = drawn.gt_index
            for name, value in target.get_fields().items():
                if name.startswith("gt_") and not sample.has(name):
                    sample.set(name, value[drawn.gt_index])
        return sample

    def _predict(
        self, features: dict[str, Tensor], proposals: list[Instances], stage: int
    ) -> tuple[Tensor, Tensor]:
        maps = [features[name] for name in self.box_in_features]
        x = self.box_pooler[stage](maps, [p.proposal_boxes for p in proposals])
        return self.box_predictor[stage](self.box_head[stage](x))

    @torch.no_grad()
    def _refine(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances], stage: int
    ) -> list[Instances]:
        """Proposals of the next loop: decoded and clipped; in training without ground truth."""
        refined = []
        decoded = self.box_predictor[stage].predict_boxes(predictions, proposals)
        for tensor, before in zip(decoded, proposals):
            boxes = Boxes(tensor)
            boxes.clip(before.image_size)
            if self.training:
                boxes = boxes[boxes.nonempty() & ~before.from_gt]
            refined.append(Instances(before.image_size, proposal_boxes=boxes))
        return refined

    def _mask_losses(
        self,
        features: dict[str, Tensor],
        samples: list[Instances],
        targets: list[Instances],
        loop: int,
    ) -> Losses:
        samples, _ = select_foreground_proposals(samples, self.num_classes)
        stages = self.schedule.stages[0 if self.mask_loop else loop : loop + 1]
        x = self._mask_features(features, [s.proposal_boxes for s in samples], stages[-1])
        logits = self.mask_head[stages[-1]].predict(mask_loop(self.mask_head, stages, x)[-1])
        losses = {"loss_mask": mask_rcnn_loss(logits, samples)}
        if self.mask_iou_head is not None and loop == len(self.schedule.stages) - 1:
            losses["loss_mask_iou"] = self._mask_iou_loss(x, logits, samples, targets)
        return losses

    def _mask_features(self, features: dict[str, Tensor], boxes: list[Boxes], stage: int) -> Tensor:
        return self.mask_pooler[stage]([features[f] for f in self.mask_in_features], boxes)

    def _mask_iou_loss(
        self, x: Tensor, logits: Tensor, samples: list[Instances], targets: list[Instances]
    ) -> Tensor:
        classes = torch.cat([sample.gt_classes for sample in samples])
        logits = _of_class(logits, classes)
        target = mask_iou_targets(
            logits,
            crop_gt_masks(samples, logits.shape[-1]),
            gt_area_ratios(samples, targets),
            self.mask_iou_threshold,
        )
        predicted = _of_class(self.mask_iou_head(x, logits), classes)
        return mask_iou_loss(predicted, target, self.mask_iou_weight)

    def _infer_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        logits = []
        for stage in self.inference_stages:
            predictions = self._predict(features, proposals, stage)
            logits.append(predictions[0])
            proposals = self._refine(predictions, proposals, stage)
        scores = average_class_scores(logits, self.score_average)
        predictor = self.box_predictor[self.inference_stages[-1]]
        instances, _ = fast_rcnn_inference(
            [p.proposal_boxes.tensor for p in proposals],
            list(scores.split([len(p) for p in proposals])),
            [p.image_size for p in proposals],
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return instances

    def _forward_mask(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Add masks (and their scores) to detections."""
        if not self.mask_on:
            return instances
        stages = self.inference_stages
        x = self._mask_features(features, [i.pred_boxes for i in instances], stages[-1])
        masks, logits = ensemble_masks(self.mask_head, stages, x)
        classes = torch.cat([i.pred_classes for i in instances])
        counts = [len(i) for i in instances]
        for image, mask in zip(instances, _of_class(masks, classes).split(counts)):
            image.pred_masks = mask[:, None]
        if self.mask_iou_head is not None:
            iou = _of_class(self.mask_iou_head(x, _of_class(logits, classes)), classes)
            for image, image_iou in zip(instances, iou.clamp(0, 1).split(counts)):
                image.set(MASK_SCORES, image.scores * image_iou)
        return instances

    def _log_samples(self, samples: list[Instances], loop: int) -> None:
        """Count the samples' IoU; ground truth does not count."""
        storage = get_event_storage()
        for sample in samples:
            self.iou_histogram.update(loop, sample.iou[~sample.from_gt])
        positives = sum((sample.gt_classes < self.num_classes).sum() for sample in samples)
        storage.put_scalar("roi_head/num_fg_samples", positives / len(samples))
        if storage.iter % HISTOGRAM_PERIOD == 0:
            for index, part in enumerate(self.iou_histogram.fractions()[loop].tolist()):
                storage.put_scalar(f"iou/{index:02d}", part, smoothing_hint=False)


def _of_class(x: Tensor, classes: Tensor) -> Tensor:
    """Channel of each row's class, or the only channel there is: Tensor[K, ...]."""
    rows = torch.arange(len(x), device=x.device)
    return x[rows, classes.clamp(max=x.shape[1] - 1)]


def _schedule(cfg: CfgNode) -> LoopSchedule:
    node = cfg.MODEL.RECURSIVE
    return LoopSchedule.from_alternation(node.ALTERNATION, node.IOU_THRESHOLDS, node.LOSS_WEIGHTS)


def _head_config(cfg: CfgNode, head: int) -> CfgNode:
    """The config as the constructor of one pair of heads should see it."""
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise ValueError(
            "RecursiveROIHeads: MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG must be True, got False"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = cfg.MODEL.RECURSIVE.BBOX_REG_WEIGHTS[head]
    if head:
        cfg.MODEL.RECURSIVE.FIRST_CARRY = True
    return cfg
