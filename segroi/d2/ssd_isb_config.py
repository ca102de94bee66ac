"""yacs keys of SSD-ISB."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN


def add_ssd_isb_config(cfg: CfgNode) -> None:
    """Add ``MODEL.SSD_ISB`` (for ``MODEL.META_ARCHITECTURE`` "SSDISB") and its solver's key."""
    # Batches of IMS_PER_BATCH images an iteration; their gradients are averaged.
    cfg.SOLVER.ACCUMULATE = 1
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
    # What the branches learn from: "boxes" of the objects, or the default "anchors" matched to
    # them, which did not converge in the thesis (AP 0.00).
    node.CROPS = "boxes"
    # Weight of the mask loss; 0 for that of the family (30 or 150).
    node.MASK_WEIGHT = 0.0
    # Blocks of the trunk up to this stride are not trained: 0 (none), 4, 8, 16, 32.
    node.FROZEN_STRIDE = 0
    # Keep the trunk's batch norm statistics in training, for small batches.
    node.FROZEN_STATISTICS = False
    # "softmax" or "sigmoid".
    node.CLASSIFICATION = "softmax"
    # Weight of a new batch in the statistics of batch norm.
    node.NORM_MOMENTUM = 0.0003
    _add_mask_branches(cfg)


def _add_mask_branches(cfg: CfgNode) -> None:
    # The same branches as a mask head, for MODEL.ROI_MASK_HEAD.NAME "InstanceBranchMaskHead" and
    # POOLER_TYPE "": keys as above, shapes in cells of the first feature.
    node = cfg.MODEL.MASK_BRANCHES = CN()
    # Maps of the pyramid, coarse to fine: the grid and the skips.
    node.IN_FEATURES = ["p5", "p4", "p3"]
    node.FAMILY = "multi_shape"
    node.SHAPES = ()
    node.ATROUS_RATES = (1,)
    node.CONDITION_ON_BOX = False
    # Whether the branches learn alone, as in SSD-ISB.
    node.STOP_GRADIENT = False
    # Weight of the mean cross-entropy of a pixel.
    node.LOSS_WEIGHT = 1.0
