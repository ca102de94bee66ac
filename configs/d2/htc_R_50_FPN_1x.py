"""Hybrid Task Cascade R50-FPN without its semantic branch, 1x."""

from ..common.recursive import htc
from .common.rcnn_fpn import mask_rcnn
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier
from .common.recursive import recursive

model = recursive(mask_rcnn, htc, first_carry=False)
