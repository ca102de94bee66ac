"""Small Hybrid Task Cascade without its semantic branch, on photographs of your own."""

from ..common.recursive import htc
from ..d2.common.recursive import recursive
from .common.photographs import dataloader, lr_multiplier, model, optimizer, train

recursive(model, htc, first_carry=False)
