"""Which detection belongs to which object, and what went wrong with the others.

Works on a COCO-format truth and detections in COCO's result format, whichever host made them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO

HIT = "found"
CONFUSED = "wrong category"
MISSED = "missed"
DUPLICATE = "duplicate"
LOOSE = "poor box"
BACKGROUND = "background"
KINDS = (HIT, CONFUSED, MISSED, DUPLICATE, LOOSE, BACKGROUND)
FALSE_POSITIVES = (CONFUSED, DUPLICATE, LOOSE, BACKGROUND)

_LEAST = 0.05  # no detection with a lower score is worth showing
_TOUCHES = 0.1  # from this IoU on, a false positive was meant for an object of its category


@dataclass(frozen=True)
class Match:
    """A detection, an object, or both where they belong together.

    Args:
        kind: one of ``KINDS``.
        image_id: their image.
        found: the detection, or None.
        real: the annotation, or None.
        iou: of their boxes; of what is alone, with the nearest box that could have been meant.
    """

    kind: str
    image_id: int
    found: dict | None
    real: dict | None
    iou: float


def match_detections(
    truth: COCO, results: Sequence[dict], threshold: float = 0.5, iou: float = 0.5
) -> list[Match]:
    """Say of every object and of every detection what became of it.

    Detections take objects in the order of their scores: first of their own category, as COCO's
    evaluation does it, then what is left of any other. Detections on a crowd region of their
    category count for nothing.

    Args:
        truth: ground truth.
        results: detections in COCO's result format.
        threshold: detections with a lower score are left out.
        iou: IoU of boxes from which a detection has found an object.

    Returns:
        The matches, image by image in the order of the ids.
    """
    kept: dict[int, list[dict]] = {}
    for result in sorted(results, key=lambda r: -r["score"]):
        if result["score"] >= threshold:
            kept.setdefault(result["image_id"], []).append(result)
    return [
        match
        for image_id in sorted(truth.imgs)
        for match in _match_image(truth, image_id, kept.get(image_id, []), iou)
    ]


def best_threshold(truth: COCO, results: Sequence[dict], iou: float = 0.5) -> float:
    """The score from which detections are worth showing: where precision and recall balance best.

    Args:
        truth: ground truth.
        results: detections in COCO's result format.
        iou: IoU of boxes from which a detection has found an object.

    Returns:
        The lowest score that is kept at the highest F1 (from 0.05 on); 0.5 where nothing is found.
    """
    alone = [m for m in match_detections(truth, results, _LEAST, iou) if m.found]
    alone.sort(key=lambda m: -m.found["score"])
    objects = sum(not a.get("iscrowd", 0) for a in truth.anns.values())
    right = np.cumsum([match.kind == HIT for match in alone])
    if not right.size or not right[-1]:
        return 0.5
    f1 = 2 * right / (np.arange(1, len(alone) + 1) + objects)
    return float(alone[int(f1.argmax())].found["score"])


def confusion_matrix(truth: COCO, matches: Sequence[Match]) -> np.ndarray:
    """How often each category was taken for each.

    Returns:
        ``int [C + 1, C + 1]``: rows are the categories of the objects, columns those of the
        detections, both in the order of the ids; last comes the background (row: false positives,
        column: misses).
    """
    place = {category: index for index, category in enumerate(sorted(truth.cats))}
    matrix = np.zeros((len(place) + 1, len(place) + 1), np.int64)
    for match in matches:
        row = place[match.real["category_id"]] if match.real else -1
        column = place[match.found["category_id"]] if match.found else -1
        matrix[row, column] += 1
    return matrix


def count_kinds(matches: Sequence[Match]) -> dict[str, int]:
    """How many matches there are of each of ``KINDS``."""
    counts = Counter(match.kind for match in matches)
    return {kind: counts[kind] for kind in KINDS}


def mask_iou(truth: COCO, match: Match) -> float:
    """IoU of the masks of a match that has both."""
    real = truth.annToRLE(match.real)
    return float(rle_codec.iou([match.found["segmentation"]], [real], [0])[0, 0])


def _match_image(truth: COCO, image_id: int, found: list[dict], iou: float) -> Iterator[Match]:
    annotations = truth.imgToAnns[image_id]
    real = [a for a in annotations if not a.get("iscrowd", 0)]
    crowd = [a for a in annotations if a.get("iscrowd", 0)]
    overlap = _overlaps(found, real)
    same = _same_category(found, real)
    taken: dict[int, int] = {}  # place of the object by that of its detection
    for allowed in (same, ~same):
        _assign(np.where(allowed, overlap, 0.0), iou, taken)
    for place, index in sorted(taken.items()):
        kind = HIT if same[place, index] else CONFUSED
        yield Match(kind, image_id, found[place], real[index], float(overlap[place, index]))
    own = np.where(same, overlap, 0.0).max(axis=1, initial=0.0)
    on_crowd = np.where(_same_category(found, crowd), _overlaps(found, crowd), 0.0)
    ignored = on_crowd.max(axis=1, initial=0.0) >= iou
    for place in range(len(found)):
        if place not in taken and not ignored[place]:
            near = float(own[place])
            kind = DUPLICATE if near >= iou else LOOSE if near >= _TOUCHES else BACKGROUND
            yield Match(kind, image_id, found[place], None, near)
    for index in set(range(len(real))) - set(taken.values()):
        near = float(overlap[:, index].max(initial=0.0))
        yield Match(MISSED, image_id, None, real[index], near)


def _assign(overlap: np.ndarray, iou: float, taken: dict[int, int]) -> None:
    """Give each detection, in order, the free object that it overlaps most, if by enough."""
    for place in range(overlap.shape[0]):
        if place in taken:
            continue
        row = overlap[place].copy()
        row[list(taken.values())] = 0.0
        if row.max(initial=0.0) >= iou:
            taken[place] = int(row.argmax())


def _overlaps(found: list[dict], real: list[dict]) -> np.ndarray:
    """``[F, R]`` IoU of boxes; of a crowd region, the part of the detection that lies on it."""
    if not found or not real:
        return np.zeros((len(found), len(real)))
    crowd = [int(bool(a.get("iscrowd", 0))) for a in real]
    boxes = [np.array([i["bbox"] for i in items], np.float64) for items in (found, real)]
    return np.asarray(rle_codec.iou(*boxes, crowd))


def _same_category(found: list[dict], real: list[dict]) -> np.ndarray:
    """``bool [F, R]``."""
    own = np.array([f["category_id"] for f in found], np.int64)
    theirs = np.array([r["category_id"] for r in real], np.int64)
    return own[:, None] == theirs[None]
