"""segroi's RoI extractors behind the call signature of Detectron2's ``ROIPooler``."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn

from segroi import build_info
from segroi.d2.convert import boxes_to_rois
from segroi.modeling.roi_extractors import SingleLevelRoIExtractor, build_roi_extractor

ALIGNED = {"ROIAlign": False, "ROIAlignV2": True}


class SegroiPooler(nn.Module):
    """Pool features with a segroi RoI extractor wherever Detectron2 expects a ``ROIPooler``.

    Lazily: ``model.roi_heads.mask_pooler = L(SegroiPooler)(extractor=L(GRoIE)(...))``.
    """

    @configurable
    def __init__(self, *, extractor: nn.Module) -> None:
        """Hold the extractor.

        Args:
            extractor: module of ``forward(features, rois) -> Tensor[K, C, h, w]`` with the
                attributes ``output_size``, ``spatial_scales`` and ``out_channels``.
        """
        super().__init__()
        self.extractor = extractor

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], head: str
    ) -> dict[str, Any]:
        """Build the extractor that ``cfg.MODEL.<head>.EXTRACTOR`` names."""
        head_cfg = cfg.MODEL[head]
        shapes = [input_shape[f] for f in cfg.MODEL.ROI_HEADS.IN_FEATURES]
        if head_cfg.POOLER_TYPE not in ALIGNED:
            raise ValueError(
                f"SegroiPooler: MODEL.{head}.POOLER_TYPE must be one of {sorted(ALIGNED)}, "
                f"got {head_cfg.POOLER_TYPE!r}"
            )
        extractor = build_roi_extractor(
            head_cfg.EXTRACTOR,
            output_size=head_cfg.POOLER_RESOLUTION,
            spatial_scales=[1.0 / s.stride for s in shapes],
            in_channels=shapes[0].channels,
            sampling_ratio=head_cfg.POOLER_SAMPLING_RATIO,
            aligned=ALIGNED[head_cfg.POOLER_TYPE],
            **_options(cfg, head_cfg.EXTRACTOR),
        )
        return {"extractor": extractor}

    @property
    def out_channels(self) -> int:
        """Channels of the pooled features."""
        return self.extractor.out_channels

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool the boxes of all images.

        Args:
            x: L feature maps ``Tensor[N, C, H_l, W_l]``, fine to coarse.
            box_lists: N :class:`Boxes`, xyxy in px of the input image.

        Returns:
            ``Tensor[K, C, h, w]`` for the K boxes of all images, in their order.
        """
        if len(box_lists) != x[0].shape[0]:
            raise ValueError(
                f"SegroiPooler: box_lists must hold Boxes for {x[0].shape[0]} images, "
                f"got {len(box_lists)}"
            )
        if not box_lists:
            return self.extractor(x, x[0].new_zeros(0, 5))
        return self.extractor(x, boxes_to_rois(box_lists))


def replace_poolers(model: nn.Module) -> list[str]:
    """Let segroi pool in a model of Detectron2, wherever a ``ROIPooler`` with RoIAlign does now.

    Numbers, weights and checkpoints stay the same: poolers have no parameters. Other operators
    (``ROIPool``, rotated boxes) stay, too.

    Args:
        model: any built model, changed in place.

    Returns:
        The names of the poolers that were replaced.

    Example:
        >>> replace_poolers(DefaultPredictor(cfg).model)  # doctest: +SKIP
        ['roi_heads.box_pooler', 'roi_heads.mask_pooler']
    """
    found = [name for name, module in model.named_modules() if _replaceable(module)]
    for name in found:
        parent, _, attribute = name.rpartition(".")
        pooler = model.get_submodule(name)
        first = pooler.level_poolers[0]
        extractor = SingleLevelRoIExtractor(
            pooler.output_size,
            [level.spatial_scale for level in pooler.level_poolers],
            sampling_ratio=first.sampling_ratio,
            aligned=first.aligned,
            canonical_size=pooler.canonical_box_size,
            canonical_level=pooler.canonical_level,
        )
        setattr(model.get_submodule(parent), attribute, SegroiPooler(extractor=extractor))
    return found


def with_fast_poolers(model: nn.Module, wanted: bool = True) -> nn.Module:
    """The model, its poolers replaced where that is wanted and the operators are compiled."""
    if wanted and build_info()["built"]:
        replace_poolers(model)
    return model


def _replaceable(module: nn.Module) -> bool:
    return isinstance(module, ROIPooler) and all(
        type(level) is ROIAlign for level in module.level_poolers
    )


def _options(cfg: CfgNode, name: str) -> dict[str, Any]:
    """The arguments that only the extractor of this name takes."""
    if name == "GRoIE":
        node = cfg.MODEL.GROIE
        return {
            "pre": node.PRE,
            "aggregation": node.AGGREGATION,
            "post": node.POST,
            "shared_pre": node.SHARED_PRE,
            "relu_before_sum": node.RELU_BEFORE_SUM,
            "identity_pre": node.IDENTITY_PRE,
        }
    if name == "MultiScaleSubnetwork":
        node = cfg.MODEL.MULTI_SCALE_SUBNETWORK
        return {
            "out_channels": node.CHANNELS,
            "crop_sizes": node.CROP_SIZES or None,
            "coordinates": node.COORDINATES,
            "norm": node.NORM or None,
            "relu": node.RELU,
            "fuse_kernel": node.FUSE_KERNEL,
        }
    return {}
