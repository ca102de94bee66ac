"""Small Grid R-CNN with GRoIE before box and grid head on scenes of handwritten digits."""

from ..common.grid_rcnn import grid_size
from ..common.groie import box_size
from ..d2.common.grid_rcnn import to_grid_rcnn
from ..d2.common.groie import groie_pooler
from .common.small import channels, dataloader, lr_multiplier, model, optimizer, train

to_grid_rcnn(model, channels.fpn)
for _key in ("mask_in_features", "mask_pooler", "mask_head"):
    model.roi_heads.pop(_key)
model.roi_heads.box_pooler = groie_pooler(box_size, channels.fpn)
model.roi_heads.grid_pooler = groie_pooler(grid_size, channels.fpn)
model.roi_heads.grid_head.update(point_channels=8, num_convs=3)
dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.pop("instance_mask_format")
