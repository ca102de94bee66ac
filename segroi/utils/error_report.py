"""The parts of a report that tell what a model gets wrong: confusion, error counts, galleries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from segroi.utils.detection_errors import (
    CONFUSED,
    FALSE_POSITIVES,
    HIT,
    MISSED,
    Match,
    confusion_matrix,
    count_kinds,
    mask_iou,
    match_detections,
)
from segroi.utils.detection_pictures import crop_match
from segroi.utils.report import crops, matrix, note, table
from segroi.utils.run_record import Truth

_WIDEST = 25  # categories of a confusion matrix that can still be read
_MEANING = {
    HIT: "an object of its category, box IoU at least 0.5",
    CONFUSED: "an object of another category, box IoU at least 0.5",
    MISSED: "an object that no detection is on",
    "duplicate": "one more detection of an object that was found",
    "poor box": "box IoU 0.1 to 0.5 with an object of its category",
    "background": "nothing of its category is there",
}


def error_sections(
    truth: Truth, results: Sequence[dict], threshold: float, count: int = 12
) -> dict[str, str]:
    """Confusion matrix, kinds of errors and crops of the worst ones, as HTML by heading.

    Args:
        truth: what was evaluated on.
        results: detections in COCO's result format.
        threshold: detections with a lower score are left out.
        count: crops of each gallery.
    """
    matches = match_detections(truth.coco, results, threshold)
    counts = count_kinds(matches)
    rows = [[kind, number, _MEANING[kind]] for kind, number in counts.items()]
    legend = (
        f"Detections with a score of {threshold:.2f} or more, where F1 is best. In the crops the "
        '<span class="real">truth is green</span>, the '
        '<span class="found">detection pink</span>.'
    )
    errors = f"<p>{legend}</p>" + table(["", "number", "meaning"], rows)
    for title, chosen in _galleries(truth, matches):
        if chosen:
            shown = chosen[:count]
            pictures = [(crop_match(truth.coco, truth.images, m), lines) for m, lines in shown]
            errors += f"<h3>{title}</h3>" + crops(pictures)
    return {"Confusion": _confusion(truth, matches), "Errors": errors}


def name_of(truth: Truth, instance: dict) -> str:
    """The name of an instance's category."""
    return truth.coco.cats[instance["category_id"]]["name"]


def size_of(instance: dict) -> str:
    """Width and height of an instance."""
    return "{:.0f}×{:.0f} px".format(*instance["bbox"][2:])


def file_of(truth: Truth, match: Match) -> str:
    """The file that a match is in."""
    return truth.coco.imgs[match.image_id]["file_name"]


def _galleries(
    truth: Truth, matches: Sequence[Match]
) -> Iterable[tuple[str, list[tuple[Match, list[str]]]]]:
    """Titles with matches, worst first, and the lines to write under each."""
    missed = [m for m in matches if m.kind == MISSED]
    by_area = _sorted(missed, lambda m: -_area(m), truth, _of_a_miss)
    yield "Missed objects, the largest first", by_area
    false = [m for m in matches if m.kind in FALSE_POSITIVES]
    by_score = _sorted(false, lambda m: -m.found["score"], truth, _of_a_false_positive)
    yield "False positives, the surest first", by_score
    masked = [m for m in matches if m.kind == HIT and m.found.get("segmentation")]
    worth = {id(m): mask_iou(truth.coco, m) for m in masked if m.real.get("segmentation")}
    hits = [m for m in masked if id(m) in worth]

    def lines(truth: Truth, match: Match) -> list[str]:
        iou = f"mask IoU {worth[id(match)]:.2f}, box IoU {match.iou:.2f}"
        return [f"{name_of(truth, match.real)}, score {match.found['score']:.2f}", iou]

    yield (
        "Worst masks of objects that were found",
        _sorted(hits, lambda m: worth[id(m)], truth, lines),
    )


def _sorted(
    matches: Sequence[Match],
    key: Callable[[Match], float],
    truth: Truth,
    lines: Callable[[Truth, Match], list[str]],
) -> list[tuple[Match, list[str]]]:
    return [(m, [*lines(truth, m), file_of(truth, m)]) for m in sorted(matches, key=key)]


def _area(match: Match) -> float:
    return match.real["bbox"][2] * match.real["bbox"][3]


def _of_a_miss(truth: Truth, match: Match) -> list[str]:
    best = f"best box IoU {match.iou:.2f}" if match.iou else "no detection touches it"
    return [f"{name_of(truth, match.real)}, {size_of(match.real)}", best]


def _of_a_false_positive(truth: Truth, match: Match) -> list[str]:
    what = f"{match.kind}, box IoU {match.iou:.2f}"
    if match.kind == CONFUSED:
        what = f"really {name_of(truth, match.real)}, box IoU {match.iou:.2f}"
    return [f"{name_of(truth, match.found)}, score {match.found['score']:.2f}", what]


def _confusion(truth: Truth, matches: Sequence[Match]) -> str:
    counts = confusion_matrix(truth.coco, matches)
    names = [truth.coco.cats[category]["name"] for category in sorted(truth.coco.cats)]
    text = "Rows: the object's category; columns: what it was taken for. "
    if len(names) > _WIDEST:
        mistakes = counts - np.diag(np.diag(counts))
        weight = (mistakes[:-1].sum(axis=1) + mistakes[:, :-1].sum(axis=0)).tolist()
        kept = sorted(sorted(range(len(names)), key=lambda i: -weight[i])[:_WIDEST])
        names = [names[i] for i in kept]
        counts = counts[np.ix_([*kept, -1], [*kept, -1])]
        text += f"The {_WIDEST} categories with the most mistakes. "
    return note(text) + matrix(names, counts, ("missed", "background"))
