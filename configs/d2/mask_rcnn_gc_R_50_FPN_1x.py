"""Mask R-CNN with GC-Net, R50-FPN, 1x."""

from .common.gc_net import add_context
from .common.rcnn_fpn import mask_rcnn
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier

model = add_context(mask_rcnn)
