"""ResNet-50 with deformable convolutions (v1) in res3, res4 and res5."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BottleneckBlock, DeformBottleneckBlock, ResNet

_BLOCKS = (3, 4, 6, 3)


def make_deformable(model):
    """Replace the stages of the model's ResNet-50."""
    model.backbone.bottom_up.stages = [
        L(ResNet.make_stage)(
            block_class=DeformBottleneckBlock if stage else BottleneckBlock,
            num_blocks=blocks,
            stride_per_block=[2 if stage else 1] + [1] * (blocks - 1),
            in_channels=128 * 2**stage if stage else 64,
            out_channels=256 * 2**stage,
            bottleneck_channels=64 * 2**stage,
            stride_in_1x1=True,
            norm="FrozenBN",
        )
        for stage, blocks in enumerate(_BLOCKS)
    ]
    return model
