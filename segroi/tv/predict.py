"""Run a trained model on pictures: files with masks, boxes and names, and a list of detections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads

from segroi.modeling.ssd.detector import SSD
from segroi.tv.evaluate import detect, encode_mask
from segroi.tv.semantic import SemanticSegmenter, segment_pixels, shares
from segroi.utils.images import load_image
from segroi.utils.progress import track
from segroi.utils.visualisation import draw_instances, save_picture

PREDICTIONS = "predictions.json"
CONTENT = {False: "instances", True: "classes"}  # of an entry of PREDICTIONS
_MARGIN = 1e-6  # models want more than their threshold, `above` at least as much


def predict_files(
    model: nn.Module,
    categories: Sequence[dict],
    files: Sequence[Path],
    output: str | Path,
    threshold: float = 0.5,
) -> list[dict]:
    """Predict pictures one by one and write ``<name>.png`` of each and ``predictions.json``.

    Args:
        model: a model of this host.
        categories: the categories that it was trained on, in the order of its labels.
        files: pictures.
        output: folder to write.
        threshold: detections with a lower score are left out.

    Returns:
        What ``predictions.json`` holds: for each file its size and its ``instances``, or the
        ``classes`` of its pixels.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    entries = []
    for file in track(files, "predict"):
        pixels = load_image(file)
        picture, found = predict_pixels(model, categories, pixels, threshold)
        drawn = save_picture(output / f"{file.name}.png", picture)
        height, width = pixels.shape[:2]
        entry = {"file": str(file), "picture": str(drawn), "height": height, "width": width}
        entries.append({**entry, CONTENT[is_semantic(model)]: found})
    (output / PREDICTIONS).write_text(json.dumps(entries, indent=1))
    return entries


def predict_pixels(
    model: nn.Module, categories: Sequence[dict], pixels: np.ndarray, threshold: float
) -> tuple[np.ndarray, list[dict]]:
    """Predict one picture; arguments as for :func:`predict_files`.

    Args:
        model: a model of this host.
        categories: the categories that it was trained on, in the order of its labels.
        pixels: RGB uint8 ``[H, W, 3]``.
        threshold: detections with a lower score are left out.

    Returns:
        The picture with masks, boxes and names, uint8 ``[h, w, 3]``, and the instances as
        :func:`describe_instances` gives them; of semantic segmentation the classes' shares.
    """
    if is_semantic(model):
        picture, labels = segment_pixels(model, categories, pixels)
        return picture, shares(labels, categories)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    found = above(detect(model, [image])[0], threshold)
    names = [categories[label - 1]["name"] for label in found["labels"].tolist()]
    masks = found["masks"].numpy() if "masks" in found else None
    drawn = draw_instances(pixels, found["boxes"].numpy(), names, masks, found["scores"].tolist())
    return drawn, describe_instances(found, names)


def is_semantic(model: nn.Module) -> bool:
    """Whether a model (or its exported file) gives classes of pixels instead of instances."""
    outputs = getattr(model, "info", {}).get("outputs", ())
    return isinstance(model, SemanticSegmenter) or "semantic" in outputs


def above(output: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """The detections whose score is at least ``threshold``."""
    kept = output["scores"] >= threshold
    return {key: value[kept] for key, value in output.items()}


def drop_below(model: nn.Module, threshold: float) -> None:
    """Let a model leave out what scores less before it makes masks.

    Stronger detections stay as they are: weaker ones suppress nothing.

    Args:
        model: of this host, or with its parts; changed in place.
        threshold: as for :func:`above`.
    """
    for module in model.modules():
        name = {RoIHeads: "score_thresh", SSD: "score_threshold"}.get(type(module))
        if name is not None:
            setattr(module, name, max(getattr(module, name), threshold - _MARGIN))


def describe_instances(found: dict[str, Tensor], names: Sequence[str]) -> list[dict]:
    """Detections as plain data: name, score, box (xyxy px), and mask or region where it has them.

    Args:
        found: what ``segroi.tv.evaluate.detect`` gives for an image.
        names: the category of each detection.
    """
    instances = [
        {"name": name, "score": round(score, 4), "box": [round(v, 2) for v in box]}
        for name, score, box in zip(names, found["scores"].tolist(), found["boxes"].tolist())
    ]
    for instance, mask in zip(instances, found["masks"].numpy() if "masks" in found else ()):
        instance["mask"] = encode_mask(mask)
    for instance, region in zip(instances, found["regions"].tolist() if "regions" in found else ()):
        instance["region"] = [round(v, 2) for v in region]
    return instances
