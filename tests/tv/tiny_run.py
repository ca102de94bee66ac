"""A model and data small enough for tests that train."""

from __future__ import annotations

import json
from pathlib import Path

TINY = {
    "backbone": "mobilenet_v3_small",
    "norm": "group",
    "size": 64,
    "max_size": 96,
    "channels": 16,
    "hidden": 32,
    "mask_convs": 1,
    "rois_per_image": 16,
    "proposals": [20, 20],
    "anchor_scale": 4.0,
}
TINY_SSD_ISB = {
    "depth_multiplier": 0.25,
    "size": 64,
    "shapes": [[2, 1], [1, 1]],
    "norm_momentum": 0.1,
    "detections": 10,
}


def tiny_arguments(model: str) -> dict:
    """Arguments that make a model of this name tiny."""
    return dict(TINY_SSD_ISB if model.startswith("ssd_isb") else TINY)


def annotation(number: int, image: int, category: int, box: list[float], **changes) -> dict:
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": box}
    return {**entry, "area": w * h, "iscrowd": 0, "segmentation": [polygon], **changes}


def write(path: Path, images: list, annotations: list, categories: list) -> Path:
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path
