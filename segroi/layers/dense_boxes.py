"""Boxes that every cell of a RoI's grid predicts by its distances to the four sides.

Legend: K RoIs, a grid of S x S cells, P = S * S cells in row-major order. Distances stand in the
order left, top, right, bottom and are measured in widths and heights of the RoI.
"""

from __future__ import annotations

import torch
from torch import Tensor


def grid_points(rois: Tensor, grid_size: int) -> Tensor:
    """Centres of the cells of a ``grid_size`` x ``grid_size`` grid laid over each RoI.

    Args:
        rois: ``Tensor[K, 4]`` xyxy px.
        grid_size: cells a side.

    Returns:
        ``Tensor[K, P, 2]``, (x, y) px.
    """
    step = (torch.arange(grid_size, dtype=rois.dtype, device=rois.device) + 0.5) / grid_size
    y, x = torch.meshgrid(step, step, indexing="ij")
    unit = torch.stack((x, y), dim=-1).reshape(1, -1, 2)
    corner, size = rois[:, None, :2], (rois[:, 2:] - rois[:, :2])[:, None]
    return corner + unit * size


def decode_dense_boxes(distances: Tensor, rois: Tensor) -> Tensor:
    """Boxes in the image from the distances that the cells predict.

    Args:
        distances: ``Tensor[K, 4, S, S]`` (left, top, right, bottom) in RoI widths and heights.
        rois: ``Tensor[K, 4]`` xyxy px.

    Returns:
        ``Tensor[K, P, 4]`` xyxy px, in the dtype of ``rois``.
    """
    points = grid_points(rois, distances.shape[-1])
    size = (rois[:, 2:] - rois[:, :2])[:, None]
    near, far = distances.to(rois.dtype).flatten(2).transpose(1, 2).split(2, dim=-1)
    return torch.cat((points - near * size, points + far * size), dim=-1)


def encode_dense_boxes(boxes: Tensor, rois: Tensor, grid_size: int) -> Tensor:
    """The distances with which every cell of a RoI predicts its box; inverse of decoding.

    Args:
        boxes: ``Tensor[K, 4]`` xyxy px, one target for each RoI.
        rois: ``Tensor[K, 4]`` xyxy px with positive width and height.
        grid_size: cells a side.

    Returns:
        ``Tensor[K, 4, S, S]``; a distance is negative where the cell lies outside its box.
    """
    points = grid_points(rois, grid_size)
    size = (rois[:, 2:] - rois[:, :2])[:, None]
    near = (points - boxes[:, None, :2]) / size
    far = (boxes[:, None, 2:] - points) / size
    return torch.cat((near, far), dim=-1).transpose(1, 2).unflatten(2, (grid_size, grid_size))


def lifted_iou_loss(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """Negative logarithm of the IoU of box pairs, element by element.

    An IoU of at most 0.1 is lifted by 0.1, which bounds the loss and its gradient for boxes that
    hardly meet. Inverted boxes have no area.

    Args:
        boxes: ``Tensor[..., 4]`` xyxy.
        targets: ``Tensor[..., 4]`` xyxy.
        eps: lower bound of areas and IoU.

    Returns:
        ``Tensor[...]``, at least 0.
    """
    near = torch.maximum(boxes[..., :2], targets[..., :2])
    far = torch.minimum(boxes[..., 2:], targets[..., 2:])
    overlap = (far - near).clamp(min=0).prod(-1)
    union = _area(boxes) + _area(targets) - overlap
    iou = (overlap / union.clamp(min=eps)).clamp(min=eps)
    return -torch.where(iou > 0.1, iou, iou + 0.1).log()


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def jitter_boxes(boxes: Tensor, ratio: float, image_size: tuple[int, int]) -> Tensor:
    """Move and scale boxes at random, inside the image.

    Centres move by up to ``ratio`` of the box's sides, the sides change by up to ``ratio`` of
    themselves. A box that would be left without area stays as it is.

    Args:
        boxes: ``Tensor[K, 4]`` xyxy px.
        ratio: 0 leaves the boxes where they are.
        image_size: (height, width) px.

    Returns:
        ``Tensor[K, 4]`` xyxy px.
    """
    noise = 1 + ratio * (2 * torch.rand_like(boxes) - 1)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2 + (noise[:, :2] - 1) * size
    size = size * noise[:, 2:]
    limit = boxes.new_tensor(image_size[::-1])
    corners = torch.stack((centre - size / 2, centre + size / 2), dim=1).clamp(min=0)
    moved = torch.minimum(corners, limit).flatten(1)
    return torch.where((moved[:, 2:] > moved[:, :2]).all(1, keepdim=True), moved, boxes)
