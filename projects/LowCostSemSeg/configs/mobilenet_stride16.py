"""MobileNet-v1 0.5 on Cityscapes, output stride 16."""

from ....configs.d2.common.low_cost import (
    dataloader,
    lr_multiplier,
    maps,
    model,
    optimizer,
    train,
)

model.backbone.output_stride = 16
model.sem_seg_head.input_shape = maps("conv13", stride=16)
