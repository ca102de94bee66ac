"""Faster R-CNN R50-FPN with GRoIE before the box head, 1x."""

from ..common.groie import box_size
from .common.groie import groie_pooler
from .common.rcnn_fpn import faster_rcnn as model
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier

model.roi_heads.box_pooler = groie_pooler(box_size)
dataloader.train.mapper.use_instance_mask = False
