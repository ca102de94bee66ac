"""yacs keys of CoMask: the neck, the collaborative head, its losses and its box average."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN


def add_comask_config(cfg: CfgNode) -> None:
    """Add ``MODEL.MFPN`` and ``MODEL.COMASK``."""
    _add_neck(cfg)
    _add_head(cfg)
    _add_losses(cfg)


def _add_neck(cfg: CfgNode) -> None:
    # Multi-scale feature pyramid ("build_resnet_mfpn_backbone" and its kin).
    cfg.MODEL.MFPN = CN()
    # Branches of each module: CoMask_1, CoMask_2, CoMask_4.
    cfg.MODEL.MFPN.NUM_BRANCHES = 4
    # "independent" branches own their strided convs (the paper's prose), "cascade" continues the
    # branch before, "tied" iterates one conv (the paper's equation).
    cfg.MODEL.MFPN.CHAIN = "independent"
    # Reduction of the channel attention (not in the paper).
    cfg.MODEL.MFPN.REDUCTION = 16
    # Norm of the convs: "" (the paper names none), "BN", "SyncBN", "GN".
    cfg.MODEL.MFPN.NORM = ""


def _add_head(cfg: CfgNode) -> None:
    # CoMaskROIHeads with ROI_MASK_HEAD.NAME "CollaborativeMaskHead".
    cfg.MODEL.COMASK = CN()
    # Width and norm groups of the convs: 576 and 36 as in D2Det, 256 and 32 for a light head.
    cfg.MODEL.COMASK.CONV_DIM = 576
    cfg.MODEL.COMASK.NORM_GROUPS = 36
    # Convs behind the strided one.
    cfg.MODEL.COMASK.NUM_CONVS = 9
    # The paper's masks have a channel for the background too.
    cfg.MODEL.COMASK.BACKGROUND_CHANNEL = True
    # Initial bias of the offsets: 0 as in D2Det, 0.5 starts from boxes of the RoI's size.
    cfg.MODEL.COMASK.OFFSET_BIAS = 0.0
    # Where boxes come from: "collaborative" (averaged by the mask's confidence), "uniform" (plain
    # mean of the dense boxes: "w/o CL"), "fc" (Fast R-CNN's regressor: "w/o CL" with no offsets).
    cfg.MODEL.COMASK.BOX = "collaborative"
    # Foreground confidence that a cell must exceed to take part in the average.
    cfg.MODEL.COMASK.THRESHOLD = 0.5


def _add_losses(cfg: CfgNode) -> None:
    cfg.MODEL.COMASK.CLS_LOSS_WEIGHT = 2.0
    cfg.MODEL.COMASK.OFFSET_LOSS_WEIGHT = 2.0
    # IoU loss of the averaged box, with gradient into its weights; 0 averages at inference only,
    # as in the paper.
    cfg.MODEL.COMASK.AVERAGE_LOSS_WEIGHT = 0.0
    # Positive RoIs of the collaborative head move and change their size by up to this part.
    cfg.MODEL.COMASK.JITTER = 0.15
    # At most so many positive RoIs of a batch (of one GPU) train the collaborative head.
    cfg.MODEL.COMASK.MAX_POSITIVES = 192
