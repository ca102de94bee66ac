"""Small Grid R-CNN with GRoIE before box and grid head on photographs of your own: boxes only."""

from .common.grid_rcnn import to_small_grid_rcnn
from .common.photographs import channels, dataloader, lr_multiplier, model, optimizer, train

to_small_grid_rcnn(model, dataloader.train.mapper, channels.fpn)
