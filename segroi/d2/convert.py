"""Between Detectron2's structures and plain tensors: the border below which only tensors exist."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes
from torch import Tensor


def boxes_to_rois(box_lists: list[Boxes]) -> Tensor:
    """Write the boxes of all images into one tensor of RoIs, without a host-device sync.

    Args:
        box_lists: N :class:`Boxes`, one per image, xyxy in px.

    Returns:
        ``Tensor[K, 5]`` float32 of (batch index, x0, y0, x1, y1), in the order of the images.

    Raises:
        ValueError: ``box_lists`` is empty (without an image there is no device to be on).
    """
    if not box_lists:
        raise ValueError("boxes_to_rois: box_lists must hold Boxes of at least one image, got []")
    return torch.cat([F.pad(b.tensor, (1, 0), value=float(i)) for i, b in enumerate(box_lists)])


def rois_to_boxes(rois: Tensor, num_images: int) -> list[Boxes]:
    """Split RoIs by their batch index: the inverse of :func:`boxes_to_rois`.

    Args:
        rois: ``Tensor[K, 5]`` of (batch index, x0, y0, x1, y1) in px.
        num_images: number of images N of the batch.

    Returns:
        N :class:`Boxes`, each in the order of ``rois``.
    """
    return [Boxes(rois[rois[:, 0] == i, 1:]) for i in range(num_images)]
