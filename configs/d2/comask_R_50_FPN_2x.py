"""CoMask R50-FPN, 2x: the paper's model and schedule."""

from ..common.comask import schedule_2x as _schedule
from ..common.comask import short_edge as _short_edge
from .common.comask import to_comask as _to_comask
from .common.rcnn_fpn import mask_rcnn as model
from .common.recipe import dataloader, multi_step, optimizer, train

_to_comask(model)
dataloader.train.mapper.augmentations[0].short_edge_length = [_short_edge]
train.max_iter = _schedule["max_iter"]
lr_multiplier = multi_step(_schedule)
