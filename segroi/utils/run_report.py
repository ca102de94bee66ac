"""The report of a run's folder, the same for every host.

What the folder holds is described in ``segroi.utils.run_record``; in ``before`` lies the evaluation
of the untrained model. What is not there is left out of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segroi.utils.coco import METRICS_AT_HALF
from segroi.utils.detection_errors import best_threshold
from segroi.utils.detection_pictures import draw_comparisons
from segroi.utils.error_report import error_sections
from segroi.utils.report import (
    ap_table,
    folded,
    headline,
    note,
    percent,
    photograph,
    picture,
    table,
    write_report,
)
from segroi.utils.run_record import (
    DETECTIONS,
    EVALUATION,
    Evaluation,
    Truth,
    images_per_second,
    iteration_seconds,
    read_detections,
    read_evaluated,
    read_evaluation,
    read_scores,
)
from segroi.utils.visualisation import draw_curves

__all__ = ["DETECTIONS", "EVALUATION", "REPORT", "Evaluation", "read_evaluation", "report_run"]
REPORT = "report.html"
_LONG = 20  # rows from which a table is folded


def report_run(
    output: str | Path,
    title: str,
    rows: Sequence[Mapping[str, float]],
    truth: Truth | None,
    origin: Mapping[str, object],
    speed: Sequence[Mapping[str, object]] = (),
    images: int = 8,
    more: Mapping[str, str] | None = None,
) -> Path:
    """Draw the pictures of a run and write its ``report.html``.

    Args:
        output: the run's folder.
        title: heading of the page.
        rows: logged iterations, as ``read_rows`` gives them.
        truth: what was evaluated on.
        origin: versions, commit and command.
        speed: rows of a further speed table, with the same keys each.
        images: how many images to draw.
        more: further sections, HTML by heading.
    """
    output = Path(output)
    sections = _numbers(output, rows)
    if rows:
        sections["Losses"] = picture(draw_curves(output / "losses.png", rows, title))
    found = read_detections(output)
    if truth and found is not None:
        sections |= _categories(output, truth)
        threshold = best_threshold(truth.coco, found)
        sections |= error_sections(truth, found, threshold)
        shown = sorted(truth.coco.imgs)[:images]
        drawn = draw_comparisons(
            output / "pictures", truth.coco, truth.images, {"found": found}, shown, threshold
        )
        pages = (photograph(np.asarray(Image.open(path)), path.stem) for path in drawn)
        sections["Ground truth and detections"] = note(
            f"The first {len(shown)} images; detections with a score of {threshold:.2f} or more."
        ) + "".join(pages)
    sections |= more or {}
    sections["Speed"] = _speed(output, rows)
    if speed:
        sections["Speed"] += table(list(speed[0]), [list(row.values()) for row in speed])
    return write_report(output / REPORT, title, {k: v for k, v in sections.items() if v}, origin)


def _numbers(output: Path, rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    after, before = read_evaluation(output), read_evaluation(output / "before")
    large = {}
    for kind, numbers in after.items():
        large |= {f"{kind} AP": percent(numbers["AP"]), f"{kind} AP50": percent(numbers["AP50"])}
    rate, step = images_per_second(output), iteration_seconds(rows)
    large |= {"images/s in evaluation": f"{rate:.2f}"} if rate else {}
    large |= {"s per training iteration": f"{step:.3f}"} if step else {}
    sections = {"": headline(large)} if large else {}
    if after:
        lines = [(f"{kind}, before training", n) for kind, n in before.items()]
        lines += [(f"{kind}, after" if before else kind, n) for kind, n in after.items()]
        sections["COCO's twelve numbers (%)"] = ap_table(lines)
        half = [(kind, finer["half"]) for kind, finer in read_scores(output).items()]
        if half:
            sections["At IoU 0.5 alone (%)"] = ap_table(half, METRICS_AT_HALF)
    return sections


def _categories(output: Path, truth: Truth) -> dict[str, str]:
    """AP of each category, with its number of objects."""
    scores = read_scores(output)
    if not scores:
        return {}
    objects = dict.fromkeys(truth.coco.cats, 0)
    for annotation in truth.coco.anns.values():
        objects[annotation["category_id"]] += not annotation.get("iscrowd", 0)
    columns = [(kind, metric) for kind in scores for metric in ("AP", "AP50", "AR100")]
    body = []
    for category, number in sorted(objects.items()):
        name = truth.coco.cats[category]["name"]
        values = [percent(scores[kind]["classes"][name][metric]) for kind, metric in columns]
        body.append([name, number, *values])
    content = table(["", "objects", *(" ".join(column) for column in columns)], body)
    if len(body) > _LONG:
        content = folded(f"{len(body)} categories", content)
    return {"Categories (%)": content}


def _speed(output: Path, rows: Sequence[Mapping[str, float]]) -> str:
    """What training and evaluation took on this machine."""
    lines = []
    evaluated, step = read_evaluated(output), iteration_seconds(rows)
    if evaluated.get("seconds"):
        count, seconds = evaluated["count"], evaluated["seconds"]
        text = f"{count} images in {seconds:.1f} s: {count / seconds:.2f} images/s"
        lines.append(["evaluation, reading and mask coding included", text])
    if step:
        lines.append(["training iteration, median", f"{step:.3f} s"])
    return table(["", ""], lines) if lines else ""
