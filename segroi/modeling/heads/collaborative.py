"""The collaborative head of CoMask: dense box offsets and a coarse mask from the same RoI features.

Legend: K RoIs, features of 2S x 2S cells (S = 7 in the paper), offsets S x S, masks 4S x 4S.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segroi.layers.conv import ConvBlock, init_conv
from segroi.layers.dense_boxes import decode_dense_boxes, lifted_iou_loss
from segroi.layers.weighted_box_average import weighted_box_average


class CollaborativeOutput(NamedTuple):
    """What the head says of each RoI.

    offsets: ``Tensor[K, 4, S, S]`` >= 0, distances left, top, right, bottom in RoI sides.
    mask_logits: ``Tensor[K, M, 4S, 4S]``, a channel for each class (and the background, last).
    """

    offsets: Tensor
    mask_logits: Tensor


class CollaborativeHead(nn.Module):
    """Strided conv, stacked convs, then offsets on one side, a mask on the other (CoMask, 3.2).

    The paper does not print the width: 576 channels with 36 norm groups are those of D2Det, on
    which it builds; 256 channels with 32 groups make the light head.

    Args:
        in_channels: channels of the RoI features.
        num_classes: foreground classes C; class c has mask channel c.
        conv_dim: channels of the convs.
        num_convs: convs of stride 1 after the strided one.
        norm_groups: groups of the convs' GroupNorm.
        background_channel: the paper's mask has C + 1 channels; ``False`` leaves the last one out.
        offset_bias: initial bias of the offsets; 0.5 starts from boxes of the RoI's own size.
    """

    def __init__(
        self,
        in_channels: int = 256,
        num_classes: int = 80,
        *,
        conv_dim: int = 576,
        num_convs: int = 9,
        norm_groups: int = 36,
        background_channel: bool = True,
        offset_bias: float = 0.0,
    ) -> None:
        super().__init__()
        norm = partial(nn.GroupNorm, norm_groups)
        self.convs = nn.Sequential(
            ConvBlock(in_channels, conv_dim, 3, stride=2, norm=norm),
            *(ConvBlock(conv_dim, conv_dim, 3, norm=norm) for _ in range(num_convs)),
        )
        self.offset = nn.Conv2d(conv_dim, 4, 3, padding=1)
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(conv_dim, 256, 2, stride=2),
            nn.GroupNorm(16, 256),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(256, 256, 2, stride=2),
            nn.ReLU(inplace=True),
        )
        self.mask = nn.Conv2d(256, num_classes + background_channel, 3, padding=1)
        for conv in (self.upsample[0], self.upsample[3], self.mask):
            init_conv(conv)
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.constant_(self.offset.bias, offset_bias)

    def forward(self, features: Tensor) -> CollaborativeOutput:
        """Offsets and mask logits of RoI features ``Tensor[K, in_channels, 2S, 2S]``."""
        features = self.convs(features)
        offsets = F.relu(self.offset(features))
        return CollaborativeOutput(offsets, self.mask(self.upsample(features)))


def select_class(mask_logits: Tensor, classes: Tensor) -> Tensor:
    """The mask of one class for each RoI.

    Args:
        mask_logits: ``Tensor[K, M, H, W]``.
        classes: int64 ``Tensor[K]``, each below M.

    Returns:
        ``Tensor[K, H, W]``.
    """
    return mask_logits[torch.arange(len(classes), device=classes.device), classes]


def foreground_confidence(class_logits: Tensor, grid_size: int) -> Tensor:
    """Mean foreground probability in each cell of the offset grid (``M_s`` of CoMask).

    Args:
        class_logits: ``Tensor[K, H, W]`` mask logits of one class.
        grid_size: cells a side; divides H and W.

    Returns:
        float32 ``Tensor[K, P]`` in [0, 1].
    """
    return F.adaptive_avg_pool2d(class_logits.float().sigmoid(), grid_size).flatten(1)


def average_boxes(
    output: CollaborativeOutput,
    rois: Tensor,
    classes: Tensor,
    *,
    collaborative: bool = True,
    threshold: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """The one box of each RoI, out of the boxes of all its cells (CoMask, eq. 8-9).

    Args:
        output: of :class:`CollaborativeHead`.
        rois: ``Tensor[K, 4]`` xyxy px.
        classes: int64 ``Tensor[K]``, whose mask channels give the weights.
        collaborative: ``False`` gives every cell the same weight (the ablation "w/o CL").
        threshold: the smallest confidence (exclusive) of a cell that takes part.

    Returns:
        the average ``Tensor[K, 4]``, the dense boxes ``Tensor[K, P, 4]`` (xyxy px) and the cells'
        foreground confidence ``Tensor[K, P]``.
    """
    dense = decode_dense_boxes(output.offsets.float(), rois)
    class_logits = select_class(output.mask_logits, classes)
    confidence = foreground_confidence(class_logits, output.offsets.shape[-1])
    if not collaborative:
        return dense.mean(1), dense, confidence
    return weighted_box_average(dense, confidence, threshold), dense, confidence


def collaborative_losses(
    output: CollaborativeOutput,
    rois: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    gt_masks: Tensor,
    *,
    offset_weight: float = 2.0,
    mask_weight: float = 1.0,
    average_weight: float = 0.0,
    threshold: float = 0.5,
) -> dict[str, Tensor]:
    """Losses of the head on positive RoIs.

    Each cell's own box is trained where the cell is foreground; the mean is taken over all cells.
    With ``average_weight`` the averaged box is trained too, and its gradient reaches the weights,
    that is the mask branch: an option beyond the paper, which averages at inference only.

    Args:
        output: of :class:`CollaborativeHead`, K RoIs (K may be 0).
        rois: ``Tensor[K, 4]`` xyxy px.
        gt_boxes: ``Tensor[K, 4]`` xyxy px.
        gt_classes: int64 ``Tensor[K]`` in [0, C).
        gt_masks: bool or float ``Tensor[K, H, W]``, the instance inside the RoI at the masks' size.
        offset_weight: weight of the cells' IoU loss.
        mask_weight: weight of the binary cross-entropy of the ground-truth class's mask.
        average_weight: weight of the averaged box's IoU loss; 0 leaves the loss out.
        threshold: as in :func:`average_boxes`.

    Returns:
        ``loss_offset``, ``loss_mask`` and, if asked for, ``loss_average``: scalars, 0 for K = 0.
    """
    if len(rois) == 0:
        nothing = output.offsets.float().sum() + output.mask_logits.float().sum()
        names = ("loss_offset", "loss_mask") + ("loss_average",) * (average_weight > 0)
        return {name: nothing * 0 for name in names}
    gt_masks = gt_masks.float()
    inside = F.interpolate(gt_masks[:, None], size=output.offsets.shape[-2:], mode="bilinear")
    average, dense, _ = average_boxes(output, rois, gt_classes, threshold=threshold)
    cell_loss = lifted_iou_loss(dense, gt_boxes[:, None]) * (inside.flatten(1) > 0.5)
    class_logits = select_class(output.mask_logits, gt_classes).float()
    mask_loss = F.binary_cross_entropy_with_logits(class_logits, gt_masks)
    losses = {"loss_offset": offset_weight * cell_loss.mean(), "loss_mask": mask_weight * mask_loss}
    if average_weight > 0:
        losses["loss_average"] = average_weight * lifted_iou_loss(average, gt_boxes).mean()
    return losses
