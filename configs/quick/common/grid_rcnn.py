"""A small Grid R-CNN with GRoIE before box and grid head."""

from ...common.grid_rcnn import grid_size
from ...common.groie import box_size
from ...d2.common.grid_rcnn import to_grid_rcnn
from ...d2.common.groie import groie_pooler


def to_small_grid_rcnn(model, mapper, channels):
    """Turn a small lazy Mask R-CNN and its training data into those of Grid R-CNN, in place."""
    to_grid_rcnn(model, channels)
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        model.roi_heads.pop(key)
    model.roi_heads.box_pooler = groie_pooler(box_size, channels)
    model.roi_heads.grid_pooler = groie_pooler(grid_size, channels)
    model.roi_heads.grid_head.update(point_channels=8, num_convs=3)
    mapper.use_instance_mask = False
    mapper.pop("instance_mask_format")
