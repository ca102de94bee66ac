"""Small plain Mask R-CNN on photographs of your own: what the other systems stand beside."""

from .common.photographs import dataloader, lr_multiplier, model, optimizer, train
