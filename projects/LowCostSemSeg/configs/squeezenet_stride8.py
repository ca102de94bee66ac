"""SqueezeNet v1.1 on Cityscapes, output stride 8."""

from detectron2.config import LazyCall as L

from segroi.d2.semantic import SqueezeNetBackbone

from ....configs.d2.common.low_cost import (
    dataloader,
    lr_multiplier,
    maps,
    model,
    optimizer,
    train,
)

model.backbone = L(SqueezeNetBackbone)(output_stride=8)
model.sem_seg_head.input_shape = maps("fire9", stride=8)
