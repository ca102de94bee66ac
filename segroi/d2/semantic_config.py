"""yacs keys of low-cost semantic segmentation: encoders, loss, optimizer."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN


def add_semantic_config(cfg: CfgNode) -> None:
    """Add ``MODEL.LOW_COST`` and what the SemanticSegmentor needs beside Detectron2's keys."""
    # Encoders "build_squeezenet_backbone" and "build_mobilenet_v1_backbone".
    cfg.MODEL.LOW_COST = CN()
    # 32, 16, 8 for MobileNet; 16, 8 for SqueezeNet.
    cfg.MODEL.LOW_COST.OUTPUT_STRIDE = 32
    # Multiplies the dilation of the last 3x3 conv.
    cfg.MODEL.LOW_COST.LAST_ATROUS_RATE = 1
    # Of MobileNet's channels.
    cfg.MODEL.LOW_COST.DEPTH_MULTIPLIER = 0.5
    # "same" pads MobileNet as TensorFlow does, "symmetric" by one on every side.
    cfg.MODEL.LOW_COST.PADDING = "same"
    # Keep batch norm statistics; scale and shift still learn.
    cfg.MODEL.LOW_COST.FROZEN_STATISTICS = True
    # "sum" over an image's pixels as in the thesis, or "mean".
    cfg.MODEL.SEM_SEG_HEAD.LOSS_REDUCTION = "sum"
    # "SGD" is Detectron2's; "AdamW" takes BASE_LR and WEIGHT_DECAY, "TFRMSprop" also MOMENTUM.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Decay of RMSProp's mean square, and what is added to it.
    cfg.SOLVER.RMSPROP_DECAY = 0.9
    cfg.SOLVER.RMSPROP_EPS = 1e-10
