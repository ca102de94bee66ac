"""Faster and Mask R-CNN of torchvision with segroi's RoI extractors in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from segroi.modeling.roi_extractors import build_roi_extractor
from segroi.tv.backbones import STRIDES, build_backbone, norm_layer

LEVELS = ("0", "1", "2", "3")


class RoIPool(nn.Module):
    """A segroi extractor behind the call of torchvision's ``MultiScaleRoIAlign``.

    Args:
        extractor: ``forward(features, rois[K, 5]) -> Tensor[K, C, h, w]``.
        levels: names of the feature maps that it reads, fine to coarse.
    """

    def __init__(self, extractor: nn.Module, levels: Sequence[str] = LEVELS) -> None:
        super().__init__()
        self.extractor = extractor
        self.levels = tuple(levels)

    def forward(
        self,
        features: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Crops ``[K, C, h, w]`` of ``boxes`` (one ``[n, 4]`` xyxy px an image), in their order."""
        return self.extractor([features[level] for level in self.levels], to_rois(boxes))


class AgnosticBoxPredictor(FastRCNNPredictor):
    """torchvision's box predictor with one box regression for all classes.

    Args:
        in_channels: width of the box head.
        num_classes: classes with background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores ``[K, classes]`` and the one box, repeated, ``[K, 4 classes]``."""
        scores, box = super().forward(x)
        return scores, box.repeat(1, scores.shape[1])


class AgnosticMaskPredictor(MaskRCNNPredictor):
    """torchvision's mask predictor with one mask for all classes; arguments as there."""

    def __init__(self, in_channels: int, dim_reduced: int, num_classes: int) -> None:
        super().__init__(in_channels, dim_reduced, 1)
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """The one mask as ``[K, classes, 2h, 2w]``, stored once."""
        return super().forward(x).expand(-1, self.num_classes, -1, -1)


def to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """``[K, 5]`` RoIs (image, x0, y0, x1, y1) of the boxes ``[n, 4]`` of each image."""
    counts = torch.tensor([len(b) for b in boxes], device=boxes[0].device)
    joined = torch.cat(list(boxes))
    index = torch.arange(len(boxes), device=joined.device).repeat_interleave(counts)
    return torch.cat([index[:, None].to(joined.dtype), joined], dim=1)


def rcnn(
    num_classes: int,
    *,
    masks: bool = True,
    extractor: str = "SingleLevelRoIExtractor",
    extractor_args: Mapping[str, object] | None = None,
    mask_extractor: str = "",
    mask_extractor_args: Mapping[str, object] | None = None,
    backbone: str = "resnet50",
    norm: str = "batch",
    frozen_stages: int = 0,
    channels: int = 256,
    size: int | Sequence[int] = 800,
    max_size: int = 1333,
    anchor_scale: float = 8.0,
    proposals: tuple[int, int] = (2000, 1000),
    rois_per_image: int = 512,
    positive_fraction: float = 0.25,
    hidden: int = 1024,
    mask_convs: int = 4,
    head_norm: str = "none",
    class_agnostic: bool = False,
    detections: int = 100,
    score_threshold: float = 0.05,
) -> FasterRCNN:
    """Faster or Mask R-CNN on a feature pyramid.

    Args:
        num_classes: classes without background.
        masks: whether to predict masks.
        extractor: RoI extractor of the box and of the mask head (each gets its own).
        extractor_args: further arguments of the extractor.
        mask_extractor: another RoI extractor for the mask head.
        mask_extractor_args: its further arguments.
        backbone: torchvision network, see ``segroi.tv.backbones``.
        norm: its normalisation: "frozen", "batch" or "group".
        frozen_stages: how many of its stages are not trained.
        channels: channels of the pyramid and the heads.
        size: short side in px that images are resized to; several: one is drawn in training.
        max_size: bound of the long side in px.
        anchor_scale: side of the anchors in strides.
        proposals: RPN proposals kept an image, in training and at test.
        rois_per_image: RoIs sampled an image in training.
        positive_fraction: the share of them that may be positive.
        hidden: width of the box head.
        mask_convs: number of 3x3 convolutions of the mask head.
        head_norm: normalisation of pyramid and heads, "none" or, to train from scratch, "group";
            with it two convolutions come before the box head's one fully connected layer.
        class_agnostic: one box regression and one mask for all classes, for little data.
        detections: detections kept an image.
        score_threshold: detections below are dropped.
    """
    anchors = AnchorGenerator(
        tuple((int(stride * anchor_scale),) for stride in (*STRIDES, 2 * STRIDES[-1])),
        ((0.5, 1.0, 2.0),) * (len(STRIDES) + 1),
    )
    box_predictor = AgnosticBoxPredictor if class_agnostic else FastRCNNPredictor
    arguments = {
        "min_size": tuple(size) if isinstance(size, Sequence) else size,
        "max_size": max_size,
        "rpn_anchor_generator": anchors,
        "rpn_post_nms_top_n_train": proposals[0],
        "rpn_post_nms_top_n_test": proposals[1],
        "rpn_pre_nms_top_n_train": proposals[0],
        "rpn_pre_nms_top_n_test": proposals[1],
        "box_batch_size_per_image": rois_per_image,
        "box_positive_fraction": positive_fraction,
        "box_detections_per_img": detections,
        "box_score_thresh": score_threshold,
        "box_head": _box_head(channels, hidden, head_norm),
        "box_predictor": box_predictor(hidden, num_classes + 1),
    }
    trunk = build_backbone(backbone, channels, norm, frozen_stages, head_norm)
    if not masks:
        model = FasterRCNN(trunk, **arguments)
    else:
        arguments["mask_head"] = MaskRCNNHeads(
            channels, (channels,) * mask_convs, 1, norm_layer(head_norm)
        )
        mask_predictor = AgnosticMaskPredictor if class_agnostic else MaskRCNNPredictor
        arguments["mask_predictor"] = mask_predictor(channels, channels, num_classes + 1)
        model = MaskRCNN(trunk, **arguments)
        # set here because torchvision's constructors accept no pooler but their own
        other = mask_extractor_args if mask_extractor else extractor_args
        model.roi_heads.mask_roi_pool = _pool(mask_extractor or extractor, other, 14, channels)
    model.roi_heads.box_roi_pool = _pool(extractor, extractor_args, 7, channels)
    return model


def _box_head(channels: int, hidden: int, norm: str) -> nn.Module:
    if norm == "none":
        return TwoMLPHead(channels * 7 * 7, hidden)
    return FastRCNNConvFCHead((channels, 7, 7), [channels] * 2, [hidden], norm_layer(norm))


def _pool(
    name: str, arguments: Mapping[str, object] | None, output_size: int, channels: int
) -> RoIPool:
    # the only extractor whose result may have other channels than the maps
    width = {"out_channels": channels} if name == "MultiScaleSubnetwork" else {}
    extractor = build_roi_extractor(
        name,
        output_size=output_size,
        spatial_scales=[1 / stride for stride in STRIDES],
        in_channels=channels,
        **{"sampling_ratio": 2, **width, **(arguments or {})},
    )
    return RoIPool(extractor)
