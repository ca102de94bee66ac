"""ROIHeads of segroi, registered with Detectron2."""

from segroi.d2.roi_heads.comask import (
    ClassificationOutputLayers,
    CollaborativeMaskHead,
    CoMaskROIHeads,
)
from segroi.d2.roi_heads.extractor_heads import ExtractorROIHeads
from segroi.d2.roi_heads.recursive import RecursiveROIHeads

__all__ = [
    "ClassificationOutputLayers",
    "CoMaskROIHeads",
    "CollaborativeMaskHead",
    "ExtractorROIHeads",
    "RecursiveROIHeads",
]
