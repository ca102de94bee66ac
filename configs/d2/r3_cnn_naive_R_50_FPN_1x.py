"""R3-CNN R50-FPN, naive, 1x: three loops, one pair of heads."""

from ..common.recursive import naive
from .common.rcnn_fpn import mask_rcnn
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier
from .common.recursive import recursive

model = recursive(mask_rcnn, naive)
