"""Assignment and sampling of boxes that marks which of them came from the ground truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou


class SampledBoxes(NamedTuple):
    """A training sample of S boxes of one image, positives first.

    Attributes:
        boxes: Tensor[S, 4], xyxy in px.
        classes: int64 Tensor[S]; `num_classes` is the background.
        gt_index: int64 Tensor[S], the best ground truth (0 where there is none).
        iou: Tensor[S], IoU with it.
        from_gt: bool Tensor[S], whether the box is itself ground truth. R3-CNN drops these when
            the boxes of one loop become the proposals of the next.
    """

    boxes: Tensor
    classes: Tensor
    gt_index: Tensor
    iou: Tensor
    from_gt: Tensor


def assign_boxes(boxes: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Best ground truth of each box.

    Args:
        boxes: Tensor[P, 4], xyxy in px.
        gt_boxes: Tensor[G, 4]; G may be 0.

    Returns:
        IoU Tensor[P] and int64 Tensor[P] index, both 0 without ground truth.
    """
    if not len(gt_boxes):
        return boxes.new_zeros(len(boxes)), boxes.new_zeros(len(boxes), dtype=torch.int64)
    return box_iou(boxes, gt_boxes).max(dim=1)


def sample_boxes(
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    *,
    iou_threshold: float,
    num_classes: int,
    num_samples: int = 512,
    positive_fraction: float = 0.25,
) -> SampledBoxes:
    """Append the ground truth, assign at one threshold and draw a random sample (R3-CNN, eq. (1)).

    Args:
        boxes: Tensor[P, 4], proposals of one image, xyxy in px.
        gt_boxes: Tensor[G, 4].
        gt_classes: int64 Tensor[G].
        iou_threshold: from here on a box is positive, below it is background.
        num_classes: foreground classes.
        num_samples: at most this many boxes are drawn.
        positive_fraction: at most this part of them is positive.

    Returns:
        The sample.
    """
    candidates = torch.cat((boxes, gt_boxes.to(boxes.dtype)))
    iou, gt_index = assign_boxes(candidates, gt_boxes.to(boxes.dtype))
    positive = (iou >= iou_threshold) & (len(gt_boxes) > 0)
    chosen_positive = _draw(positive, int(num_samples * positive_fraction))
    chosen_negative = _draw(~positive, num_samples - len(chosen_positive))
    chosen = torch.cat((chosen_positive, chosen_negative))
    classes = gt_classes.new_full((len(chosen),), num_classes)
    classes[: len(chosen_positive)] = gt_classes[gt_index[chosen_positive]]
    return SampledBoxes(
        candidates[chosen], classes, gt_index[chosen], iou[chosen], chosen >= len(boxes)
    )


def _draw(mask: Tensor, count: int) -> Tensor:
    """At most `count` random indices of the true elements."""
    indices = mask.nonzero()[:, 0]
    return indices[torch.randperm(len(indices), device=mask.device)[:count]]
