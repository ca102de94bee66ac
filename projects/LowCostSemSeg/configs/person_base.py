"""MobileNet-v1 0.5 on person crops, bilinear upsampling only."""

from .base_person_crops import dataloader, lr_multiplier, maps, model, optimizer, train

model.sem_seg_head.input_shape = maps("conv13")
