"""Box, mask and Mask IoU heads of R3-CNN and SBR-CNN, built from Detectron2's configs."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_MASK_HEAD_REGISTRY

from segroi.modeling.heads.box_head import FCCBoxHead
from segroi.modeling.heads.mask_iou_head import MaskIoUHead
from segroi.modeling.heads.recursive_mask_head import RecursiveMaskHead


@ROI_BOX_HEAD_REGISTRY.register()
class FCCHead(FCCBoxHead):
    """Fully connected channels as a Detectron2 box head (``MODEL.FCC``)."""

    @configurable
    def __init__(self, in_channels: int = 256, resolution: int = 7, **kwargs: Any) -> None:
        """See :class:`~segroi.modeling.heads.box_head.FCCBoxHead`."""
        super().__init__(in_channels, resolution, **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read ``MODEL.FCC``."""
        return {
            "in_channels": input_shape.channels,
            "resolution": input_shape.height,
            "variant": cfg.MODEL.FCC.VARIANT,
            "non_local_after": cfg.MODEL.FCC.NON_LOCAL_AFTER,
            "padding": cfg.MODEL.FCC.PADDING,
        }

    @property
    def output_shape(self) -> ShapeSpec:
        """Length of the feature vectors, for the predictor."""
        return ShapeSpec(channels=self.out_features)


@ROI_MASK_HEAD_REGISTRY.register()
class RecursiveConvUpsampleHead(RecursiveMaskHead):
    """Mask head with C1 as a Detectron2 mask head; ``RecursiveROIHeads`` drives its passes."""

    @configurable
    def __init__(self, in_channels: int = 256, num_classes: int = 80, **kwargs: Any) -> None:
        """See :class:`~segroi.modeling.heads.recursive_mask_head.RecursiveMaskHead`."""
        super().__init__(in_channels, num_classes, **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read ``MODEL.ROI_MASK_HEAD``, as the first of the heads."""
        node = cfg.MODEL.ROI_MASK_HEAD
        return {
            "in_channels": input_shape.channels,
            "num_classes": 1 if node.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dim": node.CONV_DIM,
            "num_convs": node.NUM_CONV,
            "carry": cfg.MODEL.RECURSIVE.FIRST_CARRY,
        }


def build_mask_iou_head(cfg: CfgNode, in_channels: int) -> MaskIoUHead | None:
    """Build the Mask IoU head of ``MODEL.MASK_IOU``, or None where it is not enabled."""
    node = cfg.MODEL.MASK_IOU
    if not node.ENABLED:
        return None
    return MaskIoUHead(
        in_channels,
        cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        variant=node.VARIANT,
        conv_dim=node.CONV_DIM,
        resolution=cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION,
        fc_dim=node.FC_DIM,
        non_local_after=node.NON_LOCAL_AFTER,
        padding=cfg.MODEL.FCC.PADDING,
        detach_mask=node.DETACH_MASK,
    )
