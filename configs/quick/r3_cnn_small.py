"""Small R3-CNN (three loops, one pair of heads) on photographs of your own."""

from ..common.recursive import naive
from ..d2.common.recursive import recursive
from .common.photographs import dataloader, lr_multiplier, model, optimizer, train

recursive(model, naive)
