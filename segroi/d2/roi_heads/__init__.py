"""ROIHeads of segroi, registered with Detectron2."""

from segroi.d2.roi_heads.branch_mask_head import InstanceBranchMaskHead
from segroi.d2.roi_heads.comask import (
    ClassificationOutputLayers,
    CollaborativeMaskHead,
    CoMaskROIHeads,
)
from segroi.d2.roi_heads.extractor_heads import ExtractorROIHeads
from segroi.d2.roi_heads.grid import GridROIHeads
from segroi.d2.roi_heads.recursive import RecursiveROIHeads
from segroi.d2.roi_heads.res5_heads import ExtractorRes5ROIHeads, MaskRCNNConvHead

__all__ = [
    "ClassificationOutputLayers",
    "CoMaskROIHeads",
    "CollaborativeMaskHead",
    "ExtractorROIHeads",
    "ExtractorRes5ROIHeads",
    "GridROIHeads",
    "InstanceBranchMaskHead",
    "MaskRCNNConvHead",
    "RecursiveROIHeads",
]
