"""Small plain Mask R-CNN on scenes of handwritten digits: what the other systems stand beside."""

from .common.small import dataloader, lr_multiplier, model, optimizer, train
