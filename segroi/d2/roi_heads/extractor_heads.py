"""ROIHeads whose box and mask heads look through a segroi RoI extractor."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads

from segroi.d2.poolers import SegroiPooler


class _ExtractorMixin:
    """Replace the pooler of each head whose ``EXTRACTOR`` key names an extractor."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR:
            return super()._init_box_head(cfg, input_shape)
        pooler = SegroiPooler(cfg, input_shape, "ROI_BOX_HEAD")
        parts = super()._init_box_head(cfg, _with_channels(input_shape, pooler.out_channels))
        return {**parts, "box_pooler": pooler}

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not (cfg.MODEL.MASK_ON and cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR):
            return super()._init_mask_head(cfg, input_shape)
        pooler = SegroiPooler(cfg, input_shape, "ROI_MASK_HEAD")
        parts = super()._init_mask_head(cfg, _with_channels(input_shape, pooler.out_channels))
        return {**parts, "mask_pooler": pooler}


@ROI_HEADS_REGISTRY.register()
class ExtractorROIHeads(_ExtractorMixin, StandardROIHeads):
    """``StandardROIHeads`` with ``MODEL.ROI_{BOX,MASK}_HEAD.EXTRACTOR``; keypoints are untouched.

    Lazy configs need no class of their own: give Detectron2's ``StandardROIHeads`` a
    :class:`~segroi.d2.poolers.SegroiPooler`.
    """


@ROI_HEADS_REGISTRY.register()
class ExtractorCascadeROIHeads(_ExtractorMixin, CascadeROIHeads):
    """``CascadeROIHeads`` with ``MODEL.ROI_{BOX,MASK}_HEAD.EXTRACTOR``."""


def _with_channels(shapes: dict[str, ShapeSpec], channels: int) -> dict[str, ShapeSpec]:
    """The same feature maps as they look to a head behind an extractor of so many channels."""
    return {name: ShapeSpec(channels=channels, stride=s.stride) for name, s in shapes.items()}
