"""Loss of SSD: smooth L1 on boxes, classification, hard examples only.

Legend: N images, A anchors, C classes without background; class 0 of logits is the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from segroi.modeling.ssd.coder import decode_boxes, encode_boxes
from segroi.modeling.ssd.matching import first_survivors, match_anchors

Classification = Literal["softmax", "sigmoid"]

_MINING_IOU = 0.99
_MINING_COUNT = 3000
_NEGATIVES_PER_POSITIVE = 3


def ssd_loss(
    offsets: Tensor,
    logits: Tensor,
    anchors: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    classification: Classification = "softmax",
) -> dict[str, Tensor]:
    """Box and classification loss of a batch, each over the number of positive anchors.

    Args:
        offsets: Tensor[N, A, 4], predicted.
        logits: Tensor[N, A, C + 1], predicted.
        anchors: Tensor[A, 4] in units of the image.
        boxes: of each image Tensor[G, 4] xyxy in units of the image.
        labels: of each image int Tensor[G] in [1, C].
        classification: softmax over all scores, or a sigmoid for each.

    Returns:
        Scalars ``loss_box`` and ``loss_cls``.
    """
    box_terms, class_terms, positives = [], [], 0
    for image_offsets, image_logits, image_boxes, image_labels in zip(
        offsets.float(), logits.float(), boxes, labels
    ):
        match = match_anchors(anchors, image_boxes)
        foreground = match >= 0
        positives += int(foreground.sum())
        target = torch.zeros_like(match)
        target[foreground] = image_labels[match[foreground]].long()
        class_loss = classification_loss(image_logits, target, classification)
        box_loss = torch.zeros_like(class_loss)
        box_loss[foreground] = _box_loss(
            image_offsets[foreground], anchors[foreground], image_boxes[match[foreground]]
        )
        hard = hard_examples(
            decode_boxes(image_offsets.detach(), anchors), class_loss.detach(), foreground
        )
        box_terms.append(box_loss[hard].sum())
        class_terms.append(class_loss[hard].sum())
    total = max(positives, 1)
    return {
        "loss_box": torch.stack(box_terms).sum() / total,
        "loss_cls": torch.stack(class_terms).sum() / total,
    }


def classification_loss(logits: Tensor, target: Tensor, kind: Classification) -> Tensor:
    """Loss Tensor[A] of logits Tensor[A, C + 1] against classes Tensor[A] (0 background)."""
    if kind == "softmax":
        return F.cross_entropy(logits, target, reduction="none")
    one_hot = F.one_hot(target, logits.shape[1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(dim=1)


def _box_loss(offsets: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
    target = encode_boxes(boxes, anchors)
    return F.smooth_l1_loss(offsets, target, reduction="none").sum(dim=1)


def hard_examples(boxes: Tensor, loss: Tensor, positive: Tensor) -> Tensor:
    """Anchors that count: hard ones that do not repeat each other, three negatives a positive.

    Args:
        boxes: Tensor[A, 4], predicted.
        loss: Tensor[A], of the class.
        positive: bool Tensor[A].

    Returns:
        int64 indices of anchors; none where no positive is among them.
    """
    hard = first_survivors(boxes, loss, _MINING_IOU, _MINING_COUNT)
    is_positive = positive[hard]
    allowed = _NEGATIVES_PER_POSITIVE * is_positive.sum()
    negatives_so_far = (~is_positive).cumsum(0)
    return hard[is_positive | (negatives_so_far <= allowed)]
