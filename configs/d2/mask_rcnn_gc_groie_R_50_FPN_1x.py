"""Mask R-CNN with GC-Net and GRoIE, R50-FPN, 1x."""

from .common.gc_net import add_context
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier
from .mask_rcnn_groie_R_50_FPN_1x import model

add_context(model)
