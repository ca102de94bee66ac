"""COCO-format files and COCO's twelve numbers, for every host."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segroi.utils.suggest import UsageError, existing_file

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
METRICS_AT_HALF = (
    *("AP50", "AP50s", "AP50m", "AP50l", "AR50@1", "AR50@10", "AR50@100"),
    *("AR50s", "AR50m", "AR50l"),
)
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
        results: detections in COCO's result format; boxes xywh in px, masks as RLE. A
            ``mask_score`` beside the ``score`` ranks the masks (Mask IoU heads).
        kinds: "box", "mask" or both.

    Returns:
        For each kind, the numbers by their names in ``METRICS``.
    """
    return {kind: scores.all for kind, scores in coco_scores(truth, results, kinds).items()}


@dataclass(frozen=True)
class CocoScores:
    """Everything that reports tell of one evaluation; 0 to 1, -1 where the truth has none.

    Args:
        all: the twelve numbers by their names in ``METRICS``.
        half: AP and AR at IoU 0.5 alone by their names in ``METRICS_AT_HALF``.
        classes: for each category's name its AP, AP50 and AR100.
    """

    all: dict[str, float]
    half: dict[str, float]
    classes: dict[str, dict[str, float]]


def coco_scores(
    truth: COCO, results: Sequence[dict], kinds: Sequence[str] = ("box", "mask")
) -> dict[str, CocoScores]:
    """COCO's numbers, those at IoU 0.5 alone and those of each category, by kind.

    The arguments are those of ``coco_metrics``.
    """
    return {kind: _scores(truth, _evaluate(truth, results, IOU_TYPES[kind])) for kind in kinds}


def _evaluate(truth: COCO, results: Sequence[dict], iou_type: str) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, _as_coco(truth, results, iou_type), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _scores(truth: COCO, evaluation: COCOeval) -> CocoScores:
    # precision: IoU thresholds (0.5 first) x recalls x categories x areas (all, S, M, L) x
    # detections an image (1, 10, 100); recall: the same without recalls
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    half = [_mean(precision[0, :, :, area, -1]) for area in range(4)]
    half += [_mean(recall[0, :, 0, most]) for most in range(3)]
    half += [_mean(recall[0, :, area, -1]) for area in range(1, 4)]
    classes = {
        truth.cats[category]["name"]: {
            "AP": _mean(precision[:, :, place, 0, -1]),
            "AP50": _mean(precision[0, :, place, 0, -1]),
            "AR100": _mean(recall[:, place, 0, -1]),
        }
        for place, category in enumerate(evaluation.params.catIds)
    }
    twelve = dict(zip(METRICS, map(float, evaluation.stats)))
    return CocoScores(twelve, dict(zip(METRICS_AT_HALF, half)), classes)


def _mean(values: np.ndarray) -> float:
    """Mean of what was measured (pycocotools puts -1 where the truth has none), or -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _as_coco(truth: COCO, results: Sequence[dict], iou_type: str) -> COCO:
    """``COCO.loadRes`` on copies: areas by mask or by box as asked; takes an empty list."""
    shape, rank = ("bbox", "score") if iou_type == "bbox" else ("segmentation", "mask_score")
    chosen = [
        {
            "image_id": result["image_id"],
            "category_id": result["category_id"],
            "score": result.get(rank, result["score"]),
            shape: result[shape],
        }
        for result in results
        if shape in result
    ]
    if chosen:
        return truth.loadRes(chosen)
    return coco_from({**truth.dataset, "annotations": []})
