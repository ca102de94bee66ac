"""Small backbones for Detectron2's FPN: quick runs on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

STAGES = ("res2", "res3", "res4", "res5")


def small_resnet(
    channels: Sequence[int] = (24, 32, 64, 96, 128),
    blocks: Sequence[int] = (1, 1, 1, 1),
    norm: str = "BN",
    out_features: Sequence[str] = STAGES,
) -> ResNet:
    """Detectron2's ResNet with few basic blocks and few channels, to be trained from scratch.

    Args:
        channels: channels of the stem and of res2 ... res5.
        blocks: number of basic blocks of res2 ... res5.
        norm: any norm of ``detectron2.layers.get_norm``.
        out_features: which of res2 ... res5 (strides 4, 8, 16, 32) it returns.

    Returns:
        The backbone.
    """
    stages = [
        ResNet.make_stage(
            BasicBlock,
            num_blocks=number,
            stride_per_block=[1 if index == 0 else 2] + [1] * (number - 1),
            in_channels=channels[index],
            out_channels=channels[index + 1],
            norm=norm,
        )
        for index, number in enumerate(blocks)
    ]
    stem = BasicStem(in_channels=3, out_channels=channels[0], norm=norm)
    return ResNet(stem, stages, out_features=list(out_features))


class MobileNetV2(Backbone):
    """torchvision's MobileNet-v2 as a Detectron2 backbone.

    The parameters keep torchvision's names (``features.0.0.weight``), so that its ImageNet weights
    load through ``DetectionCheckpointer`` as ``mobilenet_v2.pth?matching_heuristics=True``.
    """

    # Index in `features` of the last block of each stride.
    LAST = {"res2": 3, "res3": 6, "res4": 13, "res5": 17}
    STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}

    def __init__(self, width: float = 1.0, norm: str = "FrozenBN", frozen_blocks: int = 0) -> None:
        """Build the network without its classifier.

        Args:
            width: width multiplier.
            norm: "BN", or "FrozenBN" for statistics and affine parameters that do not train.
            frozen_blocks: so many of the first blocks do not train; 4 end with res2.
        """
        super().__init__()
        self.features = mobilenet_v2(width_mult=width).features[: self.LAST["res5"] + 1]
        self._out_channels = {n: _last_channels(self.features[i]) for n, i in self.LAST.items()}
        if norm == "FrozenBN":
            self.features = FrozenBatchNorm2d.convert_frozen_batchnorm(self.features)
        elif norm != "BN":
            raise ValueError(f"MobileNetV2: norm must be 'BN' or 'FrozenBN', got {norm!r}")
        self.features[:frozen_blocks].requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images ``Tensor[N, 3, H, W]`` to the feature maps res2 ... res5."""
        names = {index: name for name, index in self.LAST.items()}
        outputs = {}
        for index, block in enumerate(self.features):
            x = block(x)
            if index in names:
                outputs[names[index]] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map."""
        return {
            name: ShapeSpec(channels=self._out_channels[name], stride=stride)
            for name, stride in self.STRIDES.items()
        }


@BACKBONE_REGISTRY.register()
def build_small_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FPN on :func:`small_resnet`, from ``MODEL.SMALL_RESNET`` and ``MODEL.FPN``."""
    node = cfg.MODEL.SMALL_RESNET
    return _with_fpn(cfg, small_resnet(node.CHANNELS, node.BLOCKS, node.NORM))


@BACKBONE_REGISTRY.register()
def build_mobilenet_v2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FPN on :class:`MobileNetV2`, from ``MODEL.MOBILENET_V2`` and ``MODEL.FPN``."""
    node = cfg.MODEL.MOBILENET_V2
    return _with_fpn(cfg, MobileNetV2(node.WIDTH, node.NORM))


def _with_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _last_channels(block: nn.Module) -> int:
    return [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features
