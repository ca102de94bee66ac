"""The report of a run's folder, the same for every host.

A folder holds ``evaluation.json`` (COCO's numbers by kind), ``detections.json`` (COCO results) and,
in ``before``, the same of the untrained model. What is not there is left out of the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pycocotools.coco import COCO

from segroi.utils.report import ap_table, draw_comparisons, headline, picture, table, write_report
from segroi.utils.visualisation import draw_curves

EVALUATION = "evaluation.json"
DETECTIONS = "detections.json"
REPORT = "report.html"
Evaluation = dict[str, dict[str, float]]


def report_run(
    output: str | Path,
    title: str,
    rows: Sequence[Mapping[str, float]],
    truth: tuple[COCO, Path] | None,
    origin: Mapping[str, object],
    speed: Sequence[Mapping[str, object]] = (),
    images: int = 8,
) -> Path:
    """Draw the pictures of a run and write its ``report.html``.

    Args:
        output: the run's folder.
        title: heading of the page.
        rows: logged iterations: ``iteration`` and losses by name.
        truth: ground truth and image folder of what was evaluated.
        origin: versions, commit and command.
        speed: rows of a speed table, with the same keys each.
        images: how many images to draw.
    """
    output = Path(output)
    after, before = read_evaluation(output), read_evaluation(output / "before")
    sections = {}
    if after:
        ap = {f"{kind} AP": f"{100 * numbers['AP']:.1f}" for kind, numbers in after.items()}
        sections[""] = headline(ap)
        table_rows = [(f"{kind}, before training", n) for kind, n in before.items()]
        table_rows += [(f"{kind}, after" if before else kind, n) for kind, n in after.items()]
        sections["COCO's twelve numbers (%)"] = ap_table(table_rows)
    if rows:
        sections["Losses"] = picture(draw_curves(output / "losses.png", rows, title))
    if truth and (output / DETECTIONS).exists():
        found = json.loads((output / DETECTIONS).read_text())
        drawn = draw_comparisons(output / "pictures", *truth, found, images)
        sections["Ground truth and detections"] = "".join(map(picture, drawn))
    if speed:
        sections["Speed"] = table(list(speed[0]), [list(row.values()) for row in speed])
    return write_report(output / REPORT, title, sections, origin)


def read_evaluation(folder: Path) -> Evaluation:
    """The numbers of a folder; empty where it was not evaluated."""
    path = folder / EVALUATION
    return json.loads(path.read_text()) if path.exists() else {}
