"""COCO-format files and COCO's twelve numbers, for every host."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segroi.utils.suggest import UsageError, existing_file

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
IOU_TYPES = {"box": "bbox", "mask": "segm"}


def load_coco(path: str | Path) -> COCO:
    """Read a COCO-format annotation file.

    Raises:
        UsageError: the file is missing, no JSON, or without COCO's lists.
    """
    path = existing_file(path, "annotation file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"annotation file {path} is no JSON: {error}") from error
    lists = ("images", "annotations", "categories")
    missing = [k for k in lists if not isinstance(content, dict) or k not in content]
    if missing:
        raise UsageError(f"annotation file {path} is not COCO format: it has no {missing}")
    if not content["images"]:
        raise UsageError(f"annotation file {path} lists no images")
    return coco_from(content)


def coco_from(content: dict[str, object]) -> COCO:
    """An indexed ``COCO`` from the content of an annotation file."""
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def coco_metrics(
    truth: COCO, results: Sequence[dict], kinds: Sequence[str] = ("box", "mask")
) -> dict[str, dict[str, float]]:
    """COCO's twelve numbers (0 to 1; -1 where nothing of that size is in the truth).

    Args:
        truth: ground truth.
        results: detections in COCO's result format; boxes xywh in px, masks as RLE.
        kinds: "box", "mask" or both.

    Returns:
        For each kind, the numbers by their names in ``METRICS``.
    """
    return {kind: _metrics(truth, results, IOU_TYPES[kind]) for kind in kinds}


def _metrics(truth: COCO, results: Sequence[dict], iou_type: str) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, _as_coco(truth, results, iou_type), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, map(float, evaluation.stats)))


def _as_coco(truth: COCO, results: Sequence[dict], iou_type: str) -> COCO:
    """``COCO.loadRes`` on copies: areas by mask or by box as asked; takes an empty list."""
    keys = ("image_id", "category_id", "score", "bbox" if iou_type == "bbox" else "segmentation")
    chosen = [{key: result[key] for key in keys} for result in results if keys[3] in result]
    if chosen:
        return truth.loadRes(chosen)
    return coco_from({**truth.dataset, "annotations": []})
