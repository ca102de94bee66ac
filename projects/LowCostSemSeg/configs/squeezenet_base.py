"""SqueezeNet v1.1 on Cityscapes, bilinear upsampling only."""

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

model.backbone = L(SqueezeNetBackbone)()
model.sem_seg_head.input_shape = maps("fire9")
