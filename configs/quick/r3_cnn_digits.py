"""Small R3-CNN (three loops, one pair of heads) on scenes of handwritten digits."""

from ..common.recursive import naive
from ..d2.common.recursive import recursive
from .common.small import dataloader, lr_multiplier, model, optimizer, train

recursive(model, naive)
