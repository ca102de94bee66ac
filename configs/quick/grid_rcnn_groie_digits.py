"""Small Grid R-CNN with GRoIE before box and grid head on scenes of handwritten digits."""

from .common.grid_rcnn import to_small_grid_rcnn
from .common.small import channels, dataloader, lr_multiplier, model, optimizer, train

to_small_grid_rcnn(model, dataloader.train.mapper, channels.fpn)
