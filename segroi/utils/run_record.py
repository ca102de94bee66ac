"""What a run leaves in its folder, the same for every host, and how it is read back.

``evaluation.json`` holds COCO's twelve numbers by kind, ``scores.json`` those at IoU 0.5 and of
each category, ``detections.json`` the detections in COCO's result format, ``evaluated.json`` on
what and how fast. ``metrics.jsonl`` (torchvision) or ``metrics.json`` (Detectron2) is the log of
training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO

from segroi.utils.coco import coco_scores

EVALUATION = "evaluation.json"
SCORES = "scores.json"
DETECTIONS = "detections.json"
EVALUATED = "evaluated.json"
LOGS = ("metrics.jsonl", "metrics.json")
Evaluation = dict[str, dict[str, float]]
Row = dict[str, float]


class Truth(NamedTuple):
    """What a model was evaluated on."""

    coco: COCO
    images: Path
    data: Path | None = None


def record_evaluation(
    folder: str | Path,
    truth: Truth,
    results: Sequence[dict],
    kinds: Sequence[str],
    seconds: float | None = None,
) -> Evaluation:
    """Evaluate detections and write everything that a report is made of.

    Args:
        folder: where the files go; made where it is missing.
        truth: what was evaluated on.
        results: detections in COCO's result format.
        kinds: "box", "mask" or both.
        seconds: what the detections of all images took, reading included.

    Returns:
        COCO's twelve numbers by kind.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores = coco_scores(truth.coco, results, kinds)
    numbers = {kind: score.all for kind, score in scores.items()}
    finer = {kind: {"half": s.half, "classes": s.classes} for kind, s in scores.items()}
    evaluated = {
        "data": str(truth.data.resolve()) if truth.data else None,
        "images": str(truth.images.resolve()),
        "count": len(truth.coco.imgs),
        "seconds": seconds,
    }
    for name, content, indent in (
        (EVALUATION, numbers, 2),
        (SCORES, finer, 2),
        (EVALUATED, evaluated, 2),
        (DETECTIONS, list(results), None),
    ):
        (folder / name).write_text(json.dumps(content, indent=indent))
    return numbers


def read_evaluation(folder: Path) -> Evaluation:
    """COCO's numbers of a folder; empty where it was not evaluated."""
    return _read(folder / EVALUATION)


def read_scores(folder: Path) -> dict[str, dict[str, dict]]:
    """For each kind ``half`` and ``classes``; empty where it was not evaluated."""
    return _read(folder / SCORES)


def read_detections(folder: Path) -> list[dict] | None:
    """The detections in COCO's result format; None where it was not evaluated."""
    path = folder / DETECTIONS
    return json.loads(path.read_text()) if path.exists() else None


def read_evaluated(folder: Path) -> dict[str, object]:
    """``data``, ``images``, ``count`` and ``seconds``; empty where it was not evaluated."""
    return _read(folder / EVALUATED)


def read_rows(folder: Path) -> list[Row]:
    """The logged iterations of either host; none where there is no log.

    A row holds ``iteration``, the losses by name, ``lr`` and ``seconds`` of an iteration.
    """
    path = next((folder / name for name in LOGS if (folder / name).exists()), None)
    lines = path.read_text().splitlines() if path else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    if path is not None and path.name == LOGS[1]:
        return [_detectron2_row(row) for row in rows if "total_loss" in row]
    return _with_seconds(rows)


def iteration_seconds(rows: Sequence[Mapping[str, float]]) -> float | None:
    """The median time of an iteration."""
    known = [row["seconds"] for row in rows if "seconds" in row]
    return float(np.median(known)) if known else None


def images_per_second(folder: Path) -> float | None:
    """Speed of the evaluation, reading included."""
    evaluated = read_evaluated(folder)
    seconds = evaluated.get("seconds")
    return evaluated["count"] / seconds if seconds else None


def _detectron2_row(row: Row) -> Row:
    kept = {k: v for k, v in row.items() if k in ("iteration", "lr") or k.startswith("loss_")}
    kept["total_loss"] = row["total_loss"]
    return kept | ({"seconds": row["time"]} if "time" in row else {})


def _with_seconds(rows: list[Row]) -> list[Row]:
    """Time since the (re)start of the run turned into the time of each iteration."""
    before = 0.0
    for row in rows:
        if "time" in row:
            row["seconds"] = row["time"] - (before if row["time"] >= before else 0.0)
            before = row["time"]
    return rows


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}
