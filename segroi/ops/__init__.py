"""Region-of-interest operators."""

from segroi.ops.crop_and_resize import CropAndResize, crop_and_resize
from segroi.ops.errors import check_errors
from segroi.ops.multi_level_roi_align import MultiLevelRoIAlign, multi_level_roi_align

__all__ = [
    "CropAndResize",
    "MultiLevelRoIAlign",
    "check_errors",
    "crop_and_resize",
    "multi_level_roi_align",
]
