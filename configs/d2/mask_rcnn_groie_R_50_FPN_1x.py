"""Mask R-CNN R50-FPN with GRoIE before the box and the mask head, 1x."""

from ..common.groie import box_size, mask_size
from .common.groie import groie_pooler
from .common.rcnn_fpn import mask_rcnn as model
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier

model.roi_heads.box_pooler = groie_pooler(box_size)
model.roi_heads.mask_pooler = groie_pooler(mask_size)
