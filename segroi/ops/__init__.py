"""Region-of-interest operators; ``segroi.ops.onnx`` exports them to ONNX."""

from segroi.ops.crop_and_resize import CropAndResize, crop_and_resize
from segroi.ops.encompass_crop import (
    EncompassCrop,
    encompass_crop,
    encompass_crop_packed,
    encompassing_boxes,
    stack_rows,
)
from segroi.ops.errors import check_errors
from segroi.ops.multi_level_roi_align import MultiLevelRoIAlign, multi_level_roi_align

__all__ = [
    "CropAndResize",
    "EncompassCrop",
    "MultiLevelRoIAlign",
    "check_errors",
    "crop_and_resize",
    "encompass_crop",
    "encompass_crop_packed",
    "encompassing_boxes",
    "multi_level_roi_align",
    "stack_rows",
]
