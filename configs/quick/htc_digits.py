"""Small Hybrid Task Cascade without its semantic branch, on scenes of handwritten digits."""

from ..common.recursive import htc
from ..d2.common.recursive import recursive
from .common.small import dataloader, lr_multiplier, model, optimizer, train

recursive(model, htc, first_carry=False)
