"""Mask IoU head: predicts how well a mask fits, to score masks apart from boxes.

Z. Huang et al., "Mask Scoring R-CNN", section 3; SBR-CNN 3.2 makes it fully convolutional.
Legend: K RoIs, M x M the size of predicted masks, S x S that of the RoI features, M = 2 S.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segroi.layers.conv import ConvBlock, RectPadding
from segroi.modeling.heads.box_head import build_box_head


class MaskIoUHead(nn.Module):
    """Four convolutions on features and mask, then the layers of a box head, an IoU per class.

    Args:
        in_channels: channels of the RoI features.
        num_classes: foreground classes.
        variant: "a", two FC layers of the original, or an FCC variant, see `build_box_head`.
        conv_dim: channels of the convolutions.
        resolution: height and width S of the RoI features, cells.
        fc_dim: width of the FC layers of "a".
        non_local_after: see `FCC`.
        padding: see `FCC`.
        detach_mask: whether to keep the gradient away from the mask head.
    """

    def __init__(
        self,
        in_channels: int = 256,
        num_classes: int = 80,
        *,
        variant: str = "b",
        conv_dim: int = 256,
        resolution: int = 14,
        fc_dim: int = 1024,
        non_local_after: bool = False,
        padding: RectPadding = "code",
        detach_mask: bool = False,
    ) -> None:
        super().__init__()
        self.detach_mask = detach_mask
        self.convs = nn.Sequential(
            ConvBlock(in_channels + 1, conv_dim, 3),
            ConvBlock(conv_dim, conv_dim, 3),
            ConvBlock(conv_dim, conv_dim, 3),
            ConvBlock(conv_dim, conv_dim, 3, stride=2),
        )
        self.head = build_box_head(
            variant,
            conv_dim,
            (resolution + 1) // 2,
            fc_dim=fc_dim,
            non_local_after=non_local_after,
            padding=padding,
        )
        self.iou = nn.Linear(self.head.out_features, num_classes)
        nn.init.normal_(self.iou.weight, std=0.01)
        nn.init.zeros_(self.iou.bias)

    def forward(self, features: Tensor, mask_logits: Tensor) -> Tensor:
        """Predict the IoU of each RoI's mask for every class.

        Args:
            features: Tensor[K, C, S, S], the RoI features of the mask head.
            mask_logits: Tensor[K, M, M] of the class in question (ground truth in training).

        Returns:
            Tensor[K, num_classes].
        """
        mask = mask_logits.detach() if self.detach_mask else mask_logits
        mask = F.max_pool2d(mask.sigmoid()[:, None], 2)
        return self.iou(self.head(self.convs(torch.cat((features, mask), dim=1))))


def mask_area_ratios(masks: Tensor, boxes: Tensor, index: Tensor) -> Tensor:
    """Fraction of an object's pixels that lie inside a box.

    Args:
        masks: bool Tensor[G, H, W], whole objects in image coordinates.
        boxes: Tensor[K, 4], xyxy in px; a pixel counts if its centre lies inside.
        index: int64 Tensor[K], the object of each box.

    Returns:
        float32 Tensor[K] in [0, 1]; 0 for an empty mask.
    """
    height, width = masks.shape[1:]
    # areas[g, y, x] = pixels of object g above row y and left of column x
    areas = F.pad(masks.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32), (1, 0, 1, 0))
    x0, y0, x1, y1 = (boxes - 0.5).ceil().long().unbind(dim=1)
    x0, x1 = x0.clamp(0, width), x1.clamp(0, width)
    y0, y1 = y0.clamp(0, height), y1.clamp(0, height)
    inside = areas[index, y1, x1] - areas[index, y0, x1] - areas[index, y1, x0]
    inside = (inside + areas[index, y0, x0]).where((x1 > x0) & (y1 > y0), 0)
    return inside / areas[index, -1, -1].clamp(min=1)


def mask_iou_targets(
    mask_logits: Tensor, gt_masks: Tensor, area_ratios: Tensor, threshold: float = 0.5
) -> Tensor:
    """IoU of each binarised prediction with the whole object, also with what the box cuts off.

    Args:
        mask_logits: Tensor[K, M, M] of the ground-truth class.
        gt_masks: Tensor[K, M, M] in 0..1, the object cropped to the box and resized.
        area_ratios: Tensor[K], fraction of the object inside the box, see `mask_area_ratios`.
        threshold: probability from which a cell belongs to the prediction.

    Returns:
        float32 Tensor[K] in [0, 1], without gradient.
    """
    with torch.no_grad():
        predicted = (mask_logits.sigmoid() >= threshold).float()
        gt = (gt_masks >= 0.5).float()
        overlap = (predicted * gt).sum(dim=(1, 2))
        whole = gt.sum(dim=(1, 2)) / area_ratios.float().clamp(min=1e-7)
        union = predicted.sum(dim=(1, 2)) + whole - overlap
        return overlap / union.clamp(min=1)


def mask_iou_loss(predicted: Tensor, target: Tensor, weight: float = 0.5) -> Tensor:
    """Mean squared error over the RoIs whose target is positive.

    Args:
        predicted: Tensor[K], predicted IoU of the ground-truth class.
        target: Tensor[K], see `mask_iou_targets`.
        weight: factor of the loss.

    Returns:
        Tensor[], 0 with zero gradients if no target is positive.
    """
    keep = target > 0
    error = (predicted - target).square().where(keep, 0)
    return weight * error.sum() / keep.sum().clamp(min=1)
