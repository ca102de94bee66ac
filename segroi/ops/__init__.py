"""Region-of-interest operators."""

from segroi.ops.crop_and_resize import CropAndResize, crop_and_resize
from segroi.ops.encompass_crop import (
    EncompassCrop,
    encompass_crop,
    encompass_crop_packed,
    encompassing_boxes,
    stack_rows,
)

__all__ = [
    "CropAndResize",
    "EncompassCrop",
    "crop_and_resize",
    "encompass_crop",
    "encompass_crop_packed",
    "encompassing_boxes",
    "stack_rows",
]
