"""Mask R-CNN R50-FPN with GRoIE before the box and the mask head, 3x."""

from ..common.schedule import schedule_3x as _schedule
from .common.recipe import lr_multiplier_3x as lr_multiplier
from .mask_rcnn_groie_R_50_FPN_1x import dataloader, model, optimizer, train

train.max_iter = _schedule.max_iter
