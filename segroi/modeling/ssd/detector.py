"""SSD on MobileNet-v1: from an image to boxes (Liu et al., arXiv:1512.02325)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from segroi.layers.norm import freeze_statistics
from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1
from segroi.modeling.ssd.anchors import anchors_per_cell, ssd_anchors
from segroi.modeling.ssd.coder import decode_boxes
from segroi.modeling.ssd.head import ExtraLayers, SSDHead
from segroi.modeling.ssd.loss import Classification, ssd_loss
from segroi.modeling.ssd.matching import first_survivors


@dataclass
class SSDOutput:
    """What SSD predicts for a batch, before post-processing."""

    features: dict[str, Tensor]  # maps of the backbone
    offsets: Tensor  # [N, A, 4]
    logits: Tensor  # [N, A, C + 1]
    anchors: Tensor  # [A, 4] in units of the image


class SSD(nn.Module):
    """``ssd_mobilenet_v1`` of the TensorFlow Object Detection API.

    Predictors sit on conv11 and conv13 of the backbone and on four extra layers: 8,028 anchors in
    an image of 640 x 640 px.

    Args:
        num_classes: classes without the background.
        depth_multiplier: of the backbone and the extra layers.
        backbone: a MobileNet-v1 with the maps conv5, conv11, conv13; built by default.
        classification: "softmax" (as the thesis says) or "sigmoid" (as the API's configuration).
        score_threshold: detections need a higher score.
        nms_threshold: IoU above which the weaker of two boxes of one class is dropped.
        detections_per_image: most detections kept, of a class and in all.
        norm_momentum: weight of a new batch in the running statistics.
        frozen_stride: blocks of the backbone up to this stride are not trained.
        frozen_statistics: keep the backbone's batch norm statistics in training, as batches too
            small to estimate them want it.
    """

    def __init__(
        self,
        num_classes: int = 1,
        depth_multiplier: float = 1.0,
        backbone: MobileNetV1 | None = None,
        classification: Classification = "softmax",
        score_threshold: float = 1e-8,
        nms_threshold: float = 0.6,
        detections_per_image: int = 100,
        norm_momentum: float = 0.0003,
        frozen_stride: int = 0,
        frozen_statistics: bool = False,
    ) -> None:
        super().__init__()
        if classification not in ("softmax", "sigmoid"):
            raise ValueError(
                f"SSD: classification must be softmax or sigmoid, got {classification!r}"
            )
        self.backbone = backbone or MobileNetV1(depth_multiplier, norm_momentum=norm_momentum)
        self.backbone.freeze(frozen_stride)
        self.frozen_statistics = frozen_statistics
        channels = self.backbone.out_channels
        self.extras = ExtraLayers(channels["conv13"], depth_multiplier, norm_momentum)
        channels = [channels["conv11"], channels["conv13"], *self.extras.out_channels]
        self.head = SSDHead(channels, anchors_per_cell(len(channels)), num_classes + 1)
        self.classification = classification
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.detections_per_image = detections_per_image

    def train(self, mode: bool = True) -> SSD:
        """Set the mode, but leave frozen statistics alone."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self.backbone)
        return self

    def forward(self, images: Tensor) -> SSDOutput:
        """Predictions for images Tensor[N, 3, H, W], normalised."""
        return self.predict(self.backbone(images))

    def predict(self, features: dict[str, Tensor]) -> SSDOutput:
        """Predictions from the maps conv11 and conv13 of the backbone."""
        maps = [features["conv11"], features["conv13"], *self.extras(features["conv13"])]
        offsets, logits = self.head(maps)
        anchors = ssd_anchors([tuple(x.shape[-2:]) for x in maps], offsets.device)
        return SSDOutput(features, offsets, logits, anchors)

    def losses(
        self, output: SSDOutput, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Losses against boxes Tensor[G, 4] in units of the image and labels from 1 on."""
        kind = self.classification
        return ssd_loss(output.offsets, output.logits, output.anchors, boxes, labels, kind)

    @torch.no_grad()
    def detect(self, output: SSDOutput) -> list[dict[str, Tensor]]:
        """Detections of each image: ``boxes`` in units of the image, ``scores``, ``labels``."""
        boxes = clip_boxes_to_image(decode_boxes(output.offsets.float(), output.anchors), (1, 1))
        logits = output.logits.float()
        scores = logits.softmax(-1) if self.classification == "softmax" else logits.sigmoid()
        return [self._select(b, s[:, 1:]) for b, s in zip(boxes, scores)]

    def _select(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        parts = []
        for c in range(scores.shape[1]):
            index = ((scores[:, c] > self.score_threshold) & (area > 0)).nonzero()[:, 0]
            kept = first_survivors(
                boxes[index], scores[index, c], self.nms_threshold, self.detections_per_image
            )
            parts.append((index[kept], torch.full_like(kept, c + 1)))
        index, labels = (torch.cat(p) for p in zip(*parts))
        values = scores[index, labels - 1]
        top = values.argsort(descending=True, stable=True)[: self.detections_per_image]
        return {"boxes": boxes[index[top]], "scores": values[top], "labels": labels[top]}
