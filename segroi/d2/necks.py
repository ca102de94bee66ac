"""The multi-scale feature pyramid of CoMask as a Detectron2 FPN."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_resnet_backbone
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from segroi.d2.backbones import MobileNetV2, small_resnet
from segroi.modeling.necks.msfem import MFPN


class MultiScaleFPN(FPN):
    """Detectron2's FPN followed by a neck that keeps the shape of every level.

    The FPN's own parameters keep their names, so checkpoints of Detectron2's models load.
    Lazily: ``model.backbone._target_ = MultiScaleFPN; model.backbone.neck = L(MFPN)()``.
    """

    def __init__(self, *, neck: nn.Module, **kwargs: Any) -> None:
        """Hold the neck.

        Args:
            neck: maps the list of levels to a list of levels, for instance
                :class:`~segroi.modeling.necks.msfem.MFPN` with as many levels as the FPN.
            **kwargs: arguments of Detectron2's ``FPN``.
        """
        super().__init__(**kwargs)
        self.neck = neck

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images ``Tensor[N, 3, H, W]`` to the refined levels p2 ... p6."""
        levels = super().forward(x)
        return dict(zip(levels, self.neck(list(levels.values()))))


@BACKBONE_REGISTRY.register()
def build_resnet_mfpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MultiScaleFPN:
    """MFPN on a ResNet, from ``MODEL.RESNETS``, ``MODEL.FPN`` and ``MODEL.MFPN``."""
    return _with_mfpn(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_small_resnet_mfpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MultiScaleFPN:
    """MFPN on :func:`~segroi.d2.backbones.small_resnet`, for runs on a CPU."""
    node = cfg.MODEL.SMALL_RESNET
    return _with_mfpn(cfg, small_resnet(node.CHANNELS, node.BLOCKS, node.NORM))


@BACKBONE_REGISTRY.register()
def build_mobilenet_v2_mfpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MultiScaleFPN:
    """MFPN on :class:`~segroi.d2.backbones.MobileNetV2`."""
    return _with_mfpn(cfg, MobileNetV2(cfg.MODEL.MOBILENET_V2.WIDTH, cfg.MODEL.MOBILENET_V2.NORM))


def _with_mfpn(cfg: CfgNode, bottom_up: Backbone) -> MultiScaleFPN:
    fpn, node = cfg.MODEL.FPN, cfg.MODEL.MFPN
    neck = MFPN(
        num_levels=len(fpn.IN_FEATURES) + 1,
        channels=fpn.OUT_CHANNELS,
        num_branches=node.NUM_BRANCHES,
        chain=node.CHAIN,
        reduction=node.REDUCTION,
        norm=node.NORM,
    )
    return MultiScaleFPN(
        neck=neck,
        bottom_up=bottom_up,
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=fpn.FUSE_TYPE,
    )
