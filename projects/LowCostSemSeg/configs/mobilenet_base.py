"""MobileNet-v1 0.5 on Cityscapes, bilinear upsampling only."""

from ....configs.d2.common.low_cost import (
    dataloader,
    lr_multiplier,
    maps,
    model,
    optimizer,
    train,
)

model.sem_seg_head.input_shape = maps("conv13")
