"""segroi's yacs keys, and config files that start from one of Detectron2's model zoo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.config import CfgNode as CN

from segroi.d2.comask_config import add_comask_config
from segroi.d2.grid_config import add_grid_config
from segroi.d2.recursive_config import add_recursive_config
from segroi.d2.semantic_config import add_semantic_config
from segroi.d2.ssd_isb_config import add_ssd_isb_config
from segroi.utils.safe_yaml import read_yaml
from segroi.utils.suggest import UsageError


def add_segroi_config(cfg: CfgNode) -> None:
    """Add every key of segroi to a Detectron2 config.

    Example:
        >>> cfg = get_cfg()
        >>> add_segroi_config(cfg)
        >>> cfg.MODEL.ROI_HEADS.NAME = "ExtractorROIHeads"
        >>> cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = "GRoIE"
    """
    # Config of Detectron2's model zoo that a file starts from, for instance
    # "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml". Read by `load_config` only.
    cfg.SEGROI_BASE = ""
    _add_extractor_config(cfg)
    _add_groie_config(cfg)
    _add_multi_scale_subnetwork_config(cfg)
    _add_backbone_config(cfg)
    add_comask_config(cfg)
    add_grid_config(cfg)
    add_recursive_config(cfg)
    add_semantic_config(cfg)
    add_ssd_isb_config(cfg)


def load_config(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """Read a yaml file of segroi or of Detectron2, as plain data: no tag in it runs code.

    Args:
        config_file: path; where it (or its ``_BASE_``) sets ``SEGROI_BASE``, that config of
            Detectron2's model zoo is merged first.
        opts: alternating keys and values that override the file.

    Returns:
        The whole config, not frozen.

    Raises:
        UsageError: a file is missing, no plain yaml, or its own base.
    """
    cfg = get_cfg()
    add_segroi_config(cfg)
    if config_file:
        _check_plain(Path(config_file), ())
        base = CfgNode.load_yaml_with_base(config_file).get("SEGROI_BASE")
        if base:
            cfg.merge_from_file(model_zoo.get_config_file(base), allow_unsafe=False)
        cfg.merge_from_file(config_file, allow_unsafe=False)
    cfg.merge_from_list(list(opts))
    return cfg


def _check_plain(path: Path, below: tuple[Path, ...]) -> None:
    """Raise a UsageError unless a file and what it is based on are plain yaml."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UsageError(f"config {path} holds no keys")
    bases = content.get("_BASE_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if "://" in str(base):
            raise UsageError(f"config {path}: _BASE_ {base!r} is no file; download it first")
        file = Path(os.path.normpath(path.parent / Path(str(base)).expanduser()))
        if file in (*below, path):
            raise UsageError(f"config {path}: its _BASE_ {base!r} leads back to it")
        _check_plain(file, (*below, path))


def _add_extractor_config(cfg: CfgNode) -> None:
    # Whether train_net.py lets segroi pool wherever Detectron2's ROIPooler with RoIAlign would: the
    # same numbers sooner.
    cfg.MODEL.REPLACE_POOLERS = True
    # RoI extractor of ExtractorROIHeads: "SingleLevelRoIExtractor", "GRoIE" or
    # "MultiScaleSubnetwork"; "" for Detectron2's own ROIPooler. Box and mask do not share weights.
    # POOLER_RESOLUTION, POOLER_SAMPLING_RATIO and POOLER_TYPE keep their meaning.
    cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = ""
    cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = ""
    # Whether "MaskRCNNConvHead" doubles the resolution before its predictor.
    cfg.MODEL.ROI_MASK_HEAD.MASK_UPSAMPLE = True


def _add_groie_config(cfg: CfgNode) -> None:
    # GRoIE: RoIAlign on every level -> PRE -> AGGREGATION -> POST.
    cfg.MODEL.GROIE = CN()
    # Module for the crop of each level: "none", "conv5x5", "non_local1x1", "attention" ...
    # (segroi.modeling.roi_extractors.ROI_MODULES has them all).
    cfg.MODEL.GROIE.PRE = "conv5x5"
    # "sum", "sum+" (and a 1x1 convolution), "concat" (and a 1x1 convolution), "random" (one level
    # per RoI), "linear" (PRE once, after the sum).
    cfg.MODEL.GROIE.AGGREGATION = "sum"
    # Module for the aggregated crop.
    cfg.MODEL.GROIE.POST = "attention"
    # One PRE module for all levels (as the authors' code has it), or one per level.
    cfg.MODEL.GROIE.SHARED_PRE = True
    # A ReLU on the crop of every level before the aggregation, as in the code behind the paper's
    # Tables I-IV.
    cfg.MODEL.GROIE.RELU_BEFORE_SUM = False
    # Let PRE, a convolution, start as the identity instead of at random (short trainings).
    cfg.MODEL.GROIE.IDENTITY_PRE = False


def _add_multi_scale_subnetwork_config(cfg: CfgNode) -> None:
    # Multi-scale subnetwork: crops of several sizes -> 1x1 convolution, norm, ReLU -> average
    # pooling to POOLER_RESOLUTION -> concatenation -> convolution.
    cfg.MODEL.MULTI_SCALE_SUBNETWORK = CN()
    # Sizes of the crops, multiples of POOLER_RESOLUTION; () for 1, 2 and 4 times.
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.CROP_SIZES = ()
    # Channels of the branches and of the result.
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.CHANNELS = 256
    # "aligned": RoIAlign's half-pixel sampling; "tf": TensorFlow's crop_and_resize.
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.COORDINATES = "aligned"
    # Norm after the 1x1 convolutions; "" for none.
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.NORM = "BN"
    # Whether a ReLU follows the norm.
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.RELU = True
    # Kernel of the convolution after the concatenation.
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.FUSE_KERNEL = 3


def _add_backbone_config(cfg: CfgNode) -> None:
    # Small residual network for runs on a CPU ("build_small_resnet_fpn_backbone").
    cfg.MODEL.SMALL_RESNET = CN()
    # Channels of the stem and of res2 ... res5.
    cfg.MODEL.SMALL_RESNET.CHANNELS = (24, 32, 64, 96, 128)
    # Basic blocks in each of res2 ... res5.
    cfg.MODEL.SMALL_RESNET.BLOCKS = (1, 1, 1, 1)
    # Any norm that Detectron2's get_norm knows.
    cfg.MODEL.SMALL_RESNET.NORM = "BN"
    # torchvision's MobileNet-v2 ("build_mobilenet_v2_fpn_backbone"); ImageNet weights load by
    # MODEL.WEIGHTS "mobilenet_v2.pth?matching_heuristics=True" (with INPUT.FORMAT "RGB").
    cfg.MODEL.MOBILENET_V2 = CN()
    # Width multiplier.
    cfg.MODEL.MOBILENET_V2.WIDTH = 1.0
    # "BN" trains the statistics, "FrozenBN" keeps those of the weight file.
    cfg.MODEL.MOBILENET_V2.NORM = "FrozenBN"
