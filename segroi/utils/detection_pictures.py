"""Pictures of detections: whole images beside their truth, and crops around one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO

from segroi.utils.detection_errors import Match
from segroi.utils.images import load_image
from segroi.utils.visualisation import beside, draw_instances, save_picture

REAL = (40, 220, 90)  # outline of the truth in a crop, RGB
FOUND = (255, 70, 150)  # outline of a detection
_CROP_SIDE = 192  # px of a crop in the page


def draw_comparisons(
    folder: str | Path,
    truth: COCO,
    images: str | Path,
    results: Mapping[str, Sequence[dict]],
    image_ids: Iterable[int],
    threshold: float = 0.0,
) -> list[Path]:
    """Ground truth beside the detections of one model or of several.

    Args:
        folder: where the PNGs go.
        truth: ground truth.
        images: folder of the images.
        results: detections in COCO's result format, by what is written over them.
        image_ids: the images to draw.
        threshold: detections with a lower score are not drawn.
    """
    paths = []
    for image_id in image_ids:
        entry = truth.imgs[image_id]
        pixels = _pixels(truth, images, image_id)
        real = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd", 0)]
        columns = {"ground truth": real}
        for name, found in results.items():
            own = (r for r in found if r["image_id"] == image_id)
            columns[name] = [r for r in own if r["score"] >= threshold]
        pictures = [_draw(pixels, truth, instances) for instances in columns.values()]
        titles = [f"{name}: {len(instances)}" for name, instances in columns.items()]
        name = f"{Path(entry['file_name']).stem}.png"
        paths.append(save_picture(Path(folder) / name, beside(pictures, titles)))
    return paths


def crop_match(truth: COCO, images: str | Path, match: Match, margin: float = 0.4) -> np.ndarray:
    """The part of an image around a match, object and detection outlined.

    Args:
        truth: ground truth.
        images: folder of the images.
        match: what to show; masks are outlined where it has them, else boxes.
        margin: what is shown around it, as a part of its size.

    Returns:
        ``uint8 [h, w, 3]`` RGB whose longer side is about 192 px.
    """
    pixels = _pixels(truth, images, match.image_id)
    both = [(match.real, REAL), (match.found, FOUND)]
    parts = [(instance, tint) for instance, tint in both if instance is not None]
    x0, y0, x1, y1 = _window([i["bbox"] for i, _ in parts], pixels.shape[:2], margin)
    scale = _CROP_SIDE / max(y1 - y0, x1 - x0)
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    canvas = cv2.resize(pixels[y0:y1, x0:x1], None, fx=scale, fy=scale, interpolation=how)
    for instance, tint in parts:
        if instance.get("segmentation"):
            mask = _mask(truth, instance)[y0:y1, x0:x1].astype(np.uint8)
            mask = cv2.resize(mask, canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            rims, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(canvas, rims, -1, tint, 2)
        else:
            x, y, w, h = instance["bbox"]
            corners = np.array([x - x0, y - y0, x + w - x0, y + h - y0]) * scale
            left, top, right, bottom = (int(v) for v in corners.round())
            cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), tint, 2)
    return canvas


def _window(
    boxes: Sequence[Sequence[float]], size: tuple[int, int], margin: float
) -> tuple[int, int, int, int]:
    """Whole px around all boxes (xywh), nearly square, inside the image."""
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    half = np.maximum((high - low) / 2, (high - low).max() / 4) * (1 + 2 * margin) + 4
    middle = (low + high) / 2
    limit = np.array([size[1], size[0]])
    first = np.clip(np.floor(middle - half), 0, limit - 1).astype(int)
    last = np.clip(np.ceil(middle + half), first + 1, limit).astype(int)
    return int(first[0]), int(first[1]), int(last[0]), int(last[1])


def _pixels(truth: COCO, images: str | Path, image_id: int) -> np.ndarray:
    entry = truth.imgs[image_id]
    return load_image(Path(images) / entry["file_name"], (entry["height"], entry["width"]))


def _draw(pixels: np.ndarray, truth: COCO, instances: Sequence[dict]) -> np.ndarray:
    boxes = np.array([i["bbox"] for i in instances], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [_mask(truth, i) for i in instances if i.get("segmentation")]
    return draw_instances(
        pixels,
        boxes,
        [truth.cats[i["category_id"]]["name"] for i in instances],
        np.stack(masks) if masks else None,
        [i["score"] for i in instances] if instances and "score" in instances[0] else None,
        [i["category_id"] for i in instances],
    )


def _mask(truth: COCO, instance: dict) -> np.ndarray:
    if "score" in instance:
        return rle_codec.decode(instance["segmentation"]).astype(bool)
    return truth.annToMask(instance).astype(bool)
