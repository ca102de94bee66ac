"""Low-cost semantic segmentation for Detectron2's ``SemanticSegmentor``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY, Backbone
from torch import Tensor
from torch.nn import functional as F

from segroi.layers.norm import freeze_statistics
from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1
from segroi.modeling.backbones.squeezenet import SqueezeNet
from segroi.modeling.heads.fcn_decoder import FCNDecoder
from segroi.modeling.semantic.low_cost import (
    IGNORE_LABEL,
    check_skips,
    segmentation_loss,
)

PERSON_CROPS = "segroi_person_crops"


class _EncoderMixin:
    """Detectron2's interface for a segroi encoder; images are padded to multiples of 32."""

    strides: dict[str, int]
    out_channels: dict[str, int]
    size_divisibility = 32

    def __init__(self, *, frozen_statistics: bool = True, **kwargs: Any) -> None:
        """Build the encoder.

        Args:
            frozen_statistics: keep batch norm statistics in training.
            **kwargs: arguments of the encoder.
        """
        super().__init__(**kwargs)
        self.frozen_statistics = frozen_statistics

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each map."""
        return {
            name: ShapeSpec(channels=channels, stride=self.strides[name])
            for name, channels in self.out_channels.items()
        }

    def train(self, mode: bool = True) -> _EncoderMixin:
        """Set the mode, but leave frozen batch norm statistics alone."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self)
        return self


class SqueezeNetBackbone(_EncoderMixin, SqueezeNet, Backbone):
    """:class:`~segroi.modeling.backbones.squeezenet.SqueezeNet`: pool1, pool3, fire9."""


class MobileNetV1Backbone(_EncoderMixin, MobileNetV1, Backbone):
    """:class:`~segroi.modeling.backbones.mobilenet_v1.MobileNetV1`: conv5, conv11, conv13."""


@BACKBONE_REGISTRY.register()
def build_squeezenet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SqueezeNetBackbone:
    """SqueezeNet v1.1 from ``MODEL.LOW_COST``."""
    node = cfg.MODEL.LOW_COST
    return SqueezeNetBackbone(
        frozen_statistics=node.FROZEN_STATISTICS,
        output_stride=node.OUTPUT_STRIDE,
        last_atrous_rate=node.LAST_ATROUS_RATE,
    )


@BACKBONE_REGISTRY.register()
def build_mobilenet_v1_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MobileNetV1Backbone:
    """MobileNet-v1 from ``MODEL.LOW_COST``."""
    node = cfg.MODEL.LOW_COST
    return MobileNetV1Backbone(
        frozen_statistics=node.FROZEN_STATISTICS,
        depth_multiplier=node.DEPTH_MULTIPLIER,
        output_stride=node.OUTPUT_STRIDE,
        last_atrous_rate=node.LAST_ATROUS_RATE,
        padding=node.PADDING,
    )


@SEM_SEG_HEADS_REGISTRY.register()
class FCNDecoderHead(FCNDecoder):
    """:class:`~segroi.modeling.heads.fcn_decoder.FCNDecoder` as a semantic segmentation head."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        ignore_value: int = IGNORE_LABEL,
        loss_weight: float = 1.0,
        loss_reduction: str = "sum",
    ) -> None:
        """Build the decoder on maps whose strides double.

        Args:
            input_shape: the coarsest map and the skips, by name.
            num_classes: channels of the logits.
            ignore_value: label of the pixels that are left out.
            loss_weight: factor of the loss.
            loss_reduction: see :func:`~segroi.modeling.semantic.low_cost.segmentation_loss`.
        """
        names = sorted(input_shape, key=lambda name: input_shape[name].stride)
        check_skips({name: shape.stride for name, shape in input_shape.items()}, names)
        channels = [input_shape[name].channels for name in names]
        super().__init__(channels[-1], channels[:-1], num_classes)
        self.in_features, self.stride = names, input_shape[names[0]].stride
        self.ignore_value, self.loss_weight = ignore_value, loss_weight
        self.loss_reduction = loss_reduction

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.SEM_SEG_HEAD``."""
        node = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {name: input_shape[name] for name in node.IN_FEATURES},
            "num_classes": node.NUM_CLASSES,
            "ignore_value": node.IGNORE_VALUE,
            "loss_weight": node.LOSS_WEIGHT,
            "loss_reduction": node.LOSS_REDUCTION,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """In training (None, losses), in evaluation (logits of the padded images, {})."""
        *skips, coarsest = (features[name] for name in self.in_features)
        logits = super().forward(coarsest, skips).float()
        logits = F.interpolate(logits, scale_factor=self.stride, mode="bilinear")
        if not self.training:
            return logits, {}
        loss = segmentation_loss(logits, targets, self.ignore_value, self.loss_reduction)
        return None, {"loss_sem_seg": loss * self.loss_weight}


def register_person_crops(name: str, root: str | Path) -> None:
    """Register crops that ``segroi data person-crops`` wrote; they are read when first used."""
    root = Path(root)
    DatasetCatalog.register(name, _crops_of(root))
    MetadataCatalog.get(name).set(
        stuff_classes=["background", "person"],
        ignore_label=IGNORE_LABEL,
        evaluator_type="sem_seg",
    )


def _crops_of(root: Path) -> Callable[[], list[dict[str, Any]]]:
    def load() -> list[dict[str, Any]]:
        index = json.loads((root / "crops.json").read_text())
        height, width = index["size"]
        return [
            {
                "file_name": str(root / "images" / f"{crop}.png"),
                "sem_seg_file_name": str(root / "labels" / f"{crop}.png"),
                "image_id": crop,
                "height": height,
                "width": width,
            }
            for crop in index["crops"]
        ]

    return load


for _split in ("train", "val"):
    _datasets = Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()
    register_person_crops(f"{PERSON_CROPS}_{_split}", _datasets / PERSON_CROPS / _split)
