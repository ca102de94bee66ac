"""yacs keys of SSD-ISB."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN


def add_ssd_isb_config(cfg: CfgNode) -> None:
    """Add ``MODEL.SSD_ISB``, for ``MODEL.META_ARCHITECTURE`` "SSDISB"."""
    node = cfg.MODEL.SSD_ISB = CN()
    # Classes without the background. Of COCO, 1 is person alone: objects of higher classes are
    # left out.
    node.NUM_CLASSES = 1
    # "single_branch", "single_shape", "single_shape_plus", "multi_shape", "multi_shape_new",
    # "multi_shape_small".
    node.FAMILY = "multi_shape"
    # Other branch shapes, ((height, width), ...) in cells; () for those of the family.
    node.SHAPES = ()
    # Depth multiplier of the trunk: 1.0, 0.75, 0.5, 0.25.
    node.DEPTH_MULTIPLIER = 1.0
    # Images are warped to this (height, width).
    node.IMAGE_SIZE = (640, 640)
    # Skips of a branch: 2 for FCN8, 1 for FCN16, 0 for none.
    node.SKIPS = 2
    # A mask for each class instead of one for all.
    node.CLASS_MASKS = False
    # Dilation of the branches: one number for all, or one for each.
    node.ATROUS_RATES = (1,)
    # Tell the branches where the box lies in its crop (beyond the thesis).
    node.CONDITION_ON_BOX = False
    # "softmax" or "sigmoid".
    node.CLASSIFICATION = "softmax"
    # Weight of a new batch in the statistics of batch norm.
    node.NORM_MOMENTUM = 0.0003
