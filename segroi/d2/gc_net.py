"""ResNet with the global context blocks of GC-Net."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor

from segroi.layers.context_block import ContextBlock

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ContextBottleneckBlock(BottleneckBlock):
    """Detectron2's bottleneck with a context block before the residual sum (GC-Net, section 4)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, context_ratio: float = 0.25, **kwargs: Any
    ) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            context_ratio: see `ContextBlock`.
            kwargs: those of ``BottleneckBlock``.
        """
        super().__init__(in_channels, out_channels, **kwargs)
        self.context = ContextBlock(out_channels, context_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``Tensor[N, in_channels, H, W]`` to ``Tensor[N, out_channels, H', W']``."""
        out = self.conv2(self.conv1(x).relu_()).relu_()
        out = self.context(self.conv3(out))
        return (out + (x if self.shortcut is None else self.shortcut(x))).relu_()


def gc_resnet(
    depth: int = 50,
    *,
    norm: str = "SyncBN",
    stride_in_1x1: bool = True,
    freeze_at: int = 2,
    context_ratio: float = 0.25,
) -> ResNet:
    """ResNet with context blocks in res3, res4 and res5; weights of the plain ResNet load into it.

    Args:
        depth: 50, 101 or 152.
        norm: any norm of ``detectron2.layers.get_norm``; GC-Net trains synchronised batch norm.
        stride_in_1x1: where a stage's stride is, True for MSRA's weights.
        freeze_at: see ``ResNet.freeze``.
        context_ratio: see `ContextBlock`.

    Returns:
        A backbone with the outputs res2 ... res5.
    """
    stages = []
    for index, number in enumerate(_BLOCKS[depth]):
        options = {"context_ratio": context_ratio} if index else {}
        stages.append(
            ResNet.make_stage(
                ContextBottleneckBlock if index else BottleneckBlock,
                num_blocks=number,
                stride_per_block=[2 if index else 1] + [1] * (number - 1),
                in_channels=128 * 2**index if index else 64,
                out_channels=256 * 2**index,
                bottleneck_channels=64 * 2**index,
                stride_in_1x1=stride_in_1x1,
                norm=norm,
                **options,
            )
        )
    stem = BasicStem(norm=norm)
    features = [f"res{index + 2}" for index in range(4)]
    return ResNet(stem, stages, out_features=features, freeze_at=freeze_at)


@BACKBONE_REGISTRY.register()
def build_gc_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FPN over `gc_resnet`, by the keys of Detectron2's ``build_resnet_fpn_backbone``."""
    node = cfg.MODEL.RESNETS
    bottom_up = gc_resnet(
        node.DEPTH,
        norm=node.NORM,
        stride_in_1x1=node.STRIDE_IN_1X1,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
