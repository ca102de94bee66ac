"""Anchors to objects, and non-maximum suppression that stops early."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms


def match_anchors(anchors: Tensor, boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """The object of each anchor.

    An anchor takes the object of highest IoU if that is at least ``threshold``. Then every object
    takes its best anchor in any case; of several objects with one best anchor the first gets it.

    Args:
        anchors: Tensor[A, 4] xyxy.
        boxes: Tensor[G, 4] xyxy, in the same units.
        threshold: IoU from which an anchor is positive.

    Returns:
        int64 Tensor[A]: index of an object, -1 for background.
    """
    if len(boxes) == 0:
        return anchors.new_full((len(anchors),), -1, dtype=torch.int64)
    iou = box_iou(boxes, anchors)
    best_iou, match = iou.max(dim=0)
    match = torch.where(best_iou >= threshold, match, -1)
    best_anchor = iou.argmax(dim=1)
    for g in reversed(range(len(boxes))):
        match[best_anchor[g]] = g
    return match


def matched_anchors(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The anchors that :func:`match_anchors` gives to an object, those of highest IoU first.

    Args:
        anchors: Tensor[A, 4] xyxy.
        boxes: Tensor[G, 4] xyxy, in the same units.

    Returns:
        int64 Tensor[P] of anchors, int64 Tensor[P] of their objects.
    """
    match = match_anchors(anchors, boxes)
    found = (match >= 0).nonzero()[:, 0]
    iou = box_iou(boxes, anchors)[match[found], found]
    found = found[iou.argsort(descending=True, stable=True)]
    return found, match[found]


def first_survivors(boxes: Tensor, scores: Tensor, threshold: float, count: int) -> Tensor:
    """The first ``count`` boxes that greedy non-maximum suppression keeps, in order of score.

    Suppression works down the list of scores, so what it keeps among the best boxes does not depend
    on the rest: the list is extended only while too few of its boxes survive.

    Args:
        boxes: Tensor[K, 4] xyxy.
        scores: Tensor[K].
        threshold: boxes of a higher IoU with a kept box are dropped.
        count: how many are wanted.

    Returns:
        int64 Tensor[<= count], indices into ``boxes``.
    """
    order = scores.argsort(descending=True, stable=True)
    length = min(2 * count, len(order))
    while True:
        head = order[:length]
        kept = nms(boxes[head], scores[head], threshold)
        if len(kept) >= count or length == len(order):
            return head[kept[:count]]
        length = min(4 * length, len(order))
