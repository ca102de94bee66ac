"""Intersection over union of classes over a whole data set."""

from __future__ import annotations

import torch
from torch import Tensor

from segroi.modeling.semantic.low_cost import IGNORE_LABEL


class ClassIoU:
    """Count agreements of predicted and labelled pixels, image by image.

    Args:
        num_classes: C.
        ignore_label: label of the pixels that are left out.

    Example:
        >>> counts = ClassIoU(2)
        >>> counts.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 255]]))
        >>> counts.compute()
        tensor([1., 1.])
    """

    def __init__(self, num_classes: int, ignore_label: int = IGNORE_LABEL) -> None:
        self.ignore_label = ignore_label
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add predicted classes and labels, int64 tensors of one shape."""
        valid = labels != self.ignore_label
        size = len(self.confusion)
        pairs = labels[valid] * size + predictions[valid]
        self.confusion += torch.bincount(pairs, minlength=size * size).view(size, size).cpu()

    def compute(self) -> Tensor:
        """IoU ``Tensor[C]`` in [0, 1]; NaN for a class that is neither labelled nor predicted."""
        common = self.confusion.diagonal()
        return common / (self.confusion.sum(0) + self.confusion.sum(1) - common)

    def scores(self) -> dict[str, float]:
        """Means over the labelled classes in [0, 1], as Detectron2's ``SemSegEvaluator`` has them.

        ``mIoU``, ``fwIoU`` (weighted by labelled pixels), ``mACC`` (share of a class's pixels that
        were found) and ``pACC`` (of all pixels); NaN where nothing is labelled.
        """
        common, labelled = self.confusion.diagonal().double(), self.confusion.sum(1).double()
        known = labelled > 0
        iou = self.compute().double()[known]
        return {
            "mIoU": iou.mean().item(),
            "fwIoU": ((iou * labelled[known]).sum() / labelled.sum()).item(),
            "mACC": (common / labelled)[known].mean().item(),
            "pACC": (common.sum() / labelled.sum()).item(),
        }
