"""SSD-ISB for the torchvision host: the core model with this host's arguments and errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1, load_imagenet
from segroi.modeling.ssd.families import FAMILIES
from segroi.modeling.ssd.ssd_isb import SSDISB, ssd_isb
from segroi.tv.backbones import read_weights
from segroi.utils.suggest import UsageError, unknown

NORMS = ("batch", "frozen")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def build_ssd_isb(
    num_classes: int,
    *,
    family: str = "multi_shape",
    shapes: Sequence[Sequence[int]] | None = None,
    size: int | Sequence[int] = 640,
    depth_multiplier: float = 1.0,
    skips: int = 2,
    class_masks: bool = False,
    atrous_rates: int | Sequence[int] = 1,
    condition_on_box: bool = False,
    classification: str = "softmax",
    norm: str = "batch",
    norm_momentum: float = 0.0003,
    frozen_stages: int = 0,
    crops: str = "boxes",
    mask_weight: float | None = None,
    detections: int = 100,
    score_threshold: float = 1e-8,
    pixel_mean: Sequence[float] = IMAGENET_MEAN,
    pixel_std: Sequence[float] = IMAGENET_STD,
) -> SSDISB:
    """SSD-ISB, called as torchvision's detection models are.

    Args:
        num_classes: classes without background.
        family: which branches: "single_branch", "single_shape", "single_shape_plus",
            "multi_shape", "multi_shape_new", "multi_shape_small".
        shapes: other branch shapes, (height, width) in cells of 32 px.
        size: images are warped to a square of this side, or to this (height, width), in px.
        depth_multiplier: of the trunk: 1.0, 0.75, 0.5, 0.25.
        skips: 2 for FCN8, 1 for FCN16, 0 for none.
        class_masks: one mask for each class instead of one for all.
        atrous_rates: dilation of the branches, one for all or one for each.
        condition_on_box: tell the branches where the box lies (beyond the thesis).
        classification: "softmax" or "sigmoid".
        norm: "batch", or "frozen" to keep the trunk's statistics.
        norm_momentum: weight of a new batch in the running statistics.
        frozen_stages: how many stages of the trunk are not trained, from the image on: 1 up to
            stride 4, 2 up to stride 8, ...
        crops: what the branches learn from: "boxes" of the objects, or the default "anchors".
        mask_weight: weight of the mask loss, if other than the family's.
        detections: detections kept an image.
        score_threshold: detections need a higher score.
        pixel_mean: of the channels of images in 0..1.
        pixel_std: of the channels of images in 0..1.

    Raises:
        UsageError: a name or a number is none of those above.
    """
    for kind, name, known in (("family", family, FAMILIES), ("norm", norm, NORMS)):
        if name not in known:
            raise UsageError(unknown(kind, name, known))
    if not 0 <= frozen_stages <= 4:
        raise UsageError(f"frozen_stages must be 0 to 4, got {frozen_stages}")
    try:
        model = ssd_isb(
            num_classes,
            family,
            depth_multiplier,
            (size, size) if isinstance(size, int) else tuple(size),
            skips,
            shapes,
            class_masks,
            atrous_rates,
            condition_on_box,
            classification,
            norm_momentum,
            pixel_mean,
            pixel_std,
            frozen_stride=2 ** (frozen_stages + 1) if frozen_stages else 0,
            frozen_statistics=norm == "frozen",
            mask_weight=mask_weight,
            crops=crops,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    model.detector.detections_per_image = detections
    model.detector.score_threshold = score_threshold
    return model


def load_mobilenet_v1(backbone: MobileNetV1, path: str | Path) -> None:
    """Load ImageNet weights of MobileNet-v1, without its classifier.

    Args:
        backbone: the trunk of the model.
        path: file with a state dict (read with ``weights_only=True``), named as
            :func:`~segroi.modeling.backbones.mobilenet_v1.load_imagenet` says.

    Raises:
        UsageError: the file is missing, damaged, or of another network.
    """
    try:
        load_imagenet(backbone, read_weights(path))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"backbone weights {path} are of another network: {error}") from error
