"""MobileNet-v1 0.5 on person crops, two decoder steps."""

from .base_person_crops import dataloader, lr_multiplier, maps, model, optimizer, train

model.sem_seg_head.input_shape = maps("conv5", "conv11", "conv13")
