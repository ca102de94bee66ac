"""MobileNet-v1 0.5 on Cityscapes, one decoder step."""

from ....configs.d2.common.low_cost import (
    dataloader,
    lr_multiplier,
    maps,
    model,
    optimizer,
    train,
)

model.sem_seg_head.input_shape = maps("conv11", "conv13")
