"""The models of the torchvision host, by name.

Every model is called as torchvision's detection models are: ``model(images, targets)`` gives a
dict of losses in training, ``model(images)`` a list of dicts at test (``boxes``, ``labels``,
``scores`` and, with masks, ``masks`` ``[N, 1, H, W]`` in 0..1, in the frame of the image as given).
Models of semantic segmentation give ``semantic``, the class of each pixel, instead. That is all
that the training loop, evaluation and prediction ask for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from segroi.tv.backbones import load_backbone_weights
from segroi.tv.data import CocoDataset
from segroi.tv.rcnn import rcnn
from segroi.tv.semantic import build_semantic, load_encoder
from segroi.tv.semantic_data import LabelDataset
from segroi.tv.ssd_isb import build_ssd_isb, load_mobilenet_v1
from segroi.utils.suggest import UsageError, unknown


@dataclass(frozen=True)
class Entry:
    """A model that can be asked for by name.

    Args:
        build: ``build(num_classes, **arguments)`` gives the model.
        summary: one line for ``segroi models``.
        arguments: what this name gives to ``build`` unless told otherwise.
        kinds: what it predicts: "box", "mask", or "semantic" alone.
        dataset: ``dataset(data, images, categories)`` reads what it learns from.
        load_backbone: ``load_backbone(model.backbone, path)`` reads ImageNet weights.
    """

    build: Callable[..., nn.Module]
    summary: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("box", "mask")
    load_backbone: Callable[[nn.Module, str | Path], None] = load_backbone_weights
    dataset: Callable[..., CocoDataset | LabelDataset] = CocoDataset


def _semantic(summary: str, **arguments: object) -> Entry:
    kinds = ("semantic",)
    return Entry(build_semantic, summary, arguments, kinds, load_encoder, LabelDataset)


MODELS: dict[str, Entry] = {
    "faster_rcnn": Entry(rcnn, "Faster R-CNN, each box from one level", {"masks": False}, ("box",)),
    "faster_rcnn_groie": Entry(
        rcnn, "Faster R-CNN with GRoIE", {"masks": False, "extractor": "GRoIE"}, ("box",)
    ),
    "mask_rcnn": Entry(rcnn, "Mask R-CNN, each box from one level"),
    "mask_rcnn_groie": Entry(rcnn, "Mask R-CNN with GRoIE", {"extractor": "GRoIE"}),
    "mask_rcnn_multiscale": Entry(
        rcnn,
        "Mask R-CNN, masks from the multi-scale subnetwork",
        {"mask_extractor": "MultiScaleSubnetwork"},
    ),
    "ssd_isb": Entry(
        build_ssd_isb,
        "SSD-ISB, branches of ten shapes, one stage",
        load_backbone=load_mobilenet_v1,
    ),
    "ssd_isb_single_branch": Entry(
        build_ssd_isb,
        "SSD-ISB, one branch for all boxes",
        {"family": "single_branch"},
        load_backbone=load_mobilenet_v1,
    ),
    "mobilenet_v1_fcn": _semantic("Semantic segmentation, MobileNet-v1 with an FCN decoder"),
    "squeezenet_fcn": _semantic(
        "Semantic segmentation, SqueezeNet with an FCN decoder", encoder="squeezenet", steps=1
    ),
}


def find_model(name: str) -> Entry:
    """The entry of a model, or a UsageError with the nearest names."""
    if name not in MODELS:
        raise UsageError(unknown("model", name, MODELS))
    return MODELS[name]


def build_model(name: str, num_classes: int, **arguments: object) -> nn.Module:
    """Build a model by its name.

    Args:
        name: one of ``MODELS``.
        num_classes: number of classes without background.
        arguments: further arguments of its builder.

    Example:
        >>> model = build_model("mask_rcnn_groie", 80, backbone="resnet18", size=320)
    """
    entry = find_model(name)
    known = model_arguments(name)
    for argument in arguments:
        if argument not in known:
            raise UsageError(unknown(f"argument of {name}", argument, known))
    return entry.build(num_classes, **{**entry.arguments, **arguments})


def model_arguments(name: str) -> dict[str, object]:
    """The arguments of a model's builder with their defaults."""
    entry = find_model(name)
    parameters = inspect.signature(entry.build).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**defaults, **entry.arguments}
