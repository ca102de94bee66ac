"""Grid R-CNN R50-FPN with GRoIE before the box and the grid head, 1x."""

from ..common.grid_rcnn import grid_size
from ..common.groie import box_size
from .common.groie import groie_pooler
from .grid_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.box_pooler = groie_pooler(box_size)
model.roi_heads.grid_pooler = groie_pooler(grid_size)
