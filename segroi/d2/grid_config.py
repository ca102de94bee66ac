"""yacs keys of Grid R-CNN."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN


def add_grid_config(cfg: CfgNode) -> None:
    """Add ``MODEL.ROI_GRID_HEAD``, which ``GridROIHeads`` reads."""
    node = cfg.MODEL.ROI_GRID_HEAD = CN()
    # RoI extractor of the grid head, and what it crops.
    node.EXTRACTOR = "SingleLevelRoIExtractor"
    node.POOLER_TYPE = "ROIAlignV2"
    node.POOLER_RESOLUTION = 14
    node.POOLER_SAMPLING_RATIO = 2
    # Points per axis, channels per point, convolutions (the first of stride 2) and their GroupNorm.
    node.GRID_SIZE = 3
    node.POINT_CHANNELS = 64
    node.NUM_CONV = 8
    node.NORM_GROUPS = 36
    # In training, positive boxes move and stretch by up to this fraction of their size.
    node.JITTER = 0.15
    # Positive boxes of all images of one GPU that the grid head is trained on.
    node.MAX_ROIS = 192
    # Cells around a grid point that are positive in its heatmap.
    node.RADIUS = 1
    node.LOSS_WEIGHT = 15.0
