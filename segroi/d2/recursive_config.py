"""yacs keys of R3-CNN, HTC, FCC and Mask IoU."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN


def add_recursive_config(cfg: CfgNode) -> None:
    """Add the keys that ``RecursiveROIHeads``, ``FCCBoxHead`` and Mask IoU read."""
    _add_loop_config(cfg)
    _add_fcc_config(cfg)
    _add_mask_iou_config(cfg)


def _add_loop_config(cfg: CfgNode) -> None:
    node = cfg.MODEL.RECURSIVE = CN()
    # One letter per training loop names the pair of heads that works in it: "aaa" is R3-CNN with
    # one pair (naive), "aab" with two (deeper), "abc" a cascade of three like HTC.
    node.ALTERNATION = "aaa"
    # IoU from which a box is positive, and the factor of all losses, per loop; () takes the
    # paper's for this number of loops.
    node.IOU_THRESHOLDS = ()
    node.LOSS_WEIGHTS = ()
    # Weights of the box coder, per head (not per loop).
    node.BBOX_REG_WEIGHTS = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )
    # Loops at inference; 0 for as many as in training.
    node.INFERENCE_LOOPS = 0
    # Average the classification of all loops as "logits" (before the softmax) or "scores" (after).
    node.SCORE_AVERAGE = "logits"
    # Loop t runs t + 1 passes of the mask heads; False trains the last pass alone.
    node.MASK_LOOP = True
    # Whether the first mask head has the 1x1 convolution C1 for the features of the last pass.
    node.FIRST_CARRY = True


def _add_fcc_config(cfg: CfgNode) -> None:
    node = cfg.MODEL.FCC = CN()
    # ROI_BOX_HEAD.NAME "FCCHead": "b" 7x7, "c" rectangular, "d" 7x7 and "e" rectangular after a
    # non-local block, "e_early" with an earlier reduction of channels (the released code).
    node.VARIANT = "e_early"
    # A non-local block after the convolutions, too.
    node.NON_LOCAL_AFTER = False
    # Padding of the rectangular kernels: "code", "paper" or "same".
    node.PADDING = "code"


def _add_mask_iou_config(cfg: CfgNode) -> None:
    node = cfg.MODEL.MASK_IOU = CN()
    # Predict the IoU of each mask and rank masks (not boxes) by score times IoU.
    node.ENABLED = False
    # "a": two FC layers of Mask Scoring R-CNN; else an FCC variant, see MODEL.FCC.VARIANT.
    node.VARIANT = "b"
    node.NON_LOCAL_AFTER = False
    # Channels of the convolutions, and width of the FC layers of "a".
    node.CONV_DIM = 256
    node.FC_DIM = 1024
    node.LOSS_WEIGHT = 0.5
    # Probability from which a cell belongs to the predicted mask.
    node.THRESHOLD = 0.5
    # Keep the gradient of Mask IoU away from the mask head.
    node.DETACH_MASK = False
