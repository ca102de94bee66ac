"""Grid R-CNN R50-FPN, 1x."""

from .common.grid_rcnn import to_grid_rcnn
from .common.rcnn_fpn import faster_rcnn as model
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier

to_grid_rcnn(model)
dataloader.train.mapper.use_instance_mask = False
