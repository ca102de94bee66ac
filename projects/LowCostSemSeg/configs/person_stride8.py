"""MobileNet-v1 0.5 on person crops, output stride 8."""

from .base_person_crops import dataloader, lr_multiplier, maps, model, optimizer, train

model.backbone.output_stride = 8
model.sem_seg_head.input_shape = maps("conv13", stride=8)
