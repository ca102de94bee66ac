"""Region-of-interest operators."""

from segroi.ops.crop_and_resize import CropAndResize, crop_and_resize

__all__ = ["CropAndResize", "crop_and_resize"]
