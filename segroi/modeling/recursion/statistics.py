"""IoU distributions of training samples and anchors (SBR-CNN Figs. 1 and 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou


class IoUHistogram:
    """Counts of the samples' IoU with their ground truth, per loop, in equal bins of 0..1.

    Args:
        num_loops: training loops.
        num_bins: bins; 20 gives the paper's steps of 0.05.
    """

    def __init__(self, num_loops: int, num_bins: int = 20) -> None:
        self.counts = torch.zeros(num_loops, num_bins, dtype=torch.int64)

    def update(self, loop: int, iou: Tensor) -> None:
        """Count Tensor[S] of IoUs for one loop."""
        self.counts = self.counts.to(iou.device)
        self.counts[loop] += _count_bins(iou, self.counts.shape[1])

    def fractions(self) -> Tensor:
        """Part of each loop's samples in each bin, Tensor[loops, bins]; 0 without samples."""
        return self.counts / self.counts.sum(dim=1, keepdim=True).clamp(min=1)


def _count_bins(iou: Tensor, num_bins: int) -> Tensor:
    index = (iou.detach() * num_bins).long().clamp(0, num_bins - 1)
    return torch.bincount(index, minlength=num_bins)


def missing_iou_fraction(gt_boxes: Tensor, boxes: Tensor, num_bins: int = 20) -> Tensor:
    """Part of the ground truths without a box in each IoU bin (SBR-CNN Fig. 1).

    Args:
        gt_boxes: Tensor[G, 4], xyxy in px.
        boxes: Tensor[P, 4], for instance all anchors of the image.
        num_bins: equal bins of 0..1.

    Returns:
        Tensor[num_bins] in 0..1; NaN without ground truth.
    """
    bins = (box_iou(gt_boxes, boxes) * num_bins).long().clamp(0, num_bins - 1)
    found = torch.zeros(len(gt_boxes), num_bins, device=boxes.device).scatter_(1, bins, 1.0)
    return 1 - found.mean(dim=0)
