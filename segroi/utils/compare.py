"""Two runs side by side: settings, curves, AP, and the objects that one finds and the other misses.

The runs may be of different hosts. Objects and images are compared where both were evaluated on the
same annotation file and it is still there; numbers always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segroi.utils.coco import METRICS, load_coco
from segroi.utils.detection_errors import HIT, Match, best_threshold, match_detections
from segroi.utils.detection_pictures import crop_match, draw_comparisons
from segroi.utils.error_report import file_of, name_of, size_of
from segroi.utils.provenance import provenance
from segroi.utils.report import (
    crops,
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
    Evaluation,
    Row,
    Truth,
    images_per_second,
    iteration_seconds,
    read_detections,
    read_evaluated,
    read_evaluation,
    read_rows,
    read_scores,
)
from segroi.utils.settings import flatten, load_plain_yaml, settings_difference
from segroi.utils.suggest import UsageError, existing_folder
from segroi.utils.visualisation import draw_run_curves

REPORT = "compare.html"
CONFIG = "config.yaml"
_PLACES = ("output", "train.output_dir", "OUTPUT_DIR")  # settings that always differ
_CATEGORIES = 30  # rows of the table of categories
_LONG = 20  # settings from which they are folded
_CROPS = 12
_IMAGES = 8


@dataclass(frozen=True)
class Run:
    """What is known of a run."""

    name: str
    folder: Path
    settings: dict[str, object]
    rows: list[Row]
    evaluation: Evaluation
    categories: dict[str, dict[str, dict[str, float]]]  # by kind and name
    detections: list[dict] | None
    evaluated: dict[str, object]


def read_run(folder: str | Path, name: str = "") -> Run:
    """Read a run's folder.

    Args:
        folder: what training or evaluation wrote.
        name: what to call it; default: the folder's name.

    Raises:
        UsageError: there is no such folder, or neither a log nor an evaluation is in it.
    """
    folder = existing_folder(folder, "run")
    rows, evaluation = read_rows(folder), read_evaluation(folder)
    if not rows and not evaluation:
        raise UsageError(f"{folder} is no run: it holds neither a log nor an evaluation")
    config = folder / CONFIG
    return Run(
        name or folder.name,
        folder,
        flatten(load_plain_yaml(config)) if config.exists() else {},
        rows,
        evaluation,
        {kind: finer["classes"] for kind, finer in read_scores(folder).items()},
        read_detections(folder),
        read_evaluated(folder),
    )


def compare_runs(first: Run, second: Run, output: str | Path) -> dict[str, Any]:
    """Write ``compare.html`` with its pictures, and return its numbers as plain data.

    Args:
        first: a run.
        second: another one, of another name.
        output: folder to write.
    """
    output, runs = Path(output), (first, second)
    output.mkdir(parents=True, exist_ok=True)
    differing = settings_difference(first.settings, second.settings)
    differing = [row for row in differing if row[0] not in _PLACES]
    kinds = [kind for kind in first.evaluation if kind in second.evaluation]
    ap = {kind: _differences(*(run.evaluation[kind] for run in runs)) for kind in kinds}
    sections = {"": _headline(runs, ap)}
    if kinds:
        sections["AP (%)"] = "".join(_ap(runs, kind) for kind in kinds)
    sections["Settings that differ"] = _settings(runs, differing)
    if any(run.rows for run in runs):
        curves = draw_run_curves(output / "curves.png", {run.name: run.rows for run in runs})
        sections["Losses"] = picture(curves)
    sections |= _categories(runs)
    truth, why = _shared_truth(runs)
    objects: dict[str, int] = {}
    if truth:
        sections["Objects"], sections["Images"], objects = _objects(truth, runs, output)
    else:
        sections["Objects"] = note(why)
    origin = {run.name: str(run.folder.resolve()) for run in runs} | provenance()
    write_report(output / REPORT, f"{first.name} and {second.name}", sections, origin)
    return {
        "runs": [run.name for run in runs],
        "settings": {key: [one, two] for key, one, two in differing},
        "ap": ap,
        "objects": objects,
    }


def _differences(one: Mapping[str, float], two: Mapping[str, float]) -> dict[str, list[float]]:
    return {metric: [one[metric], two[metric], two[metric] - one[metric]] for metric in METRICS}


def _headline(runs: Sequence[Run], ap: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    large = {}
    for kind, numbers in ap.items():
        one, two, step = numbers["AP"]
        large[f"{kind} AP ({100 * step:+.1f})"] = f"{percent(one)} → {percent(two)}"
    rates = [images_per_second(run.folder) for run in runs]
    if all(rates):
        large["images/s in evaluation"] = " → ".join(f"{rate:.2f}" for rate in rates)
    steps = [iteration_seconds(run.rows) for run in runs]
    if all(steps):
        large["s per training iteration"] = " → ".join(f"{step:.3f}" for step in steps)
    return headline(large)


def _settings(runs: Sequence[Run], rows: Sequence[Sequence[str | None]]) -> str:
    if not rows:
        return note("None.")
    content = table(["", *(run.name for run in runs)], rows, words=True)
    return content if len(rows) <= _LONG else folded(f"{len(rows)} settings", content)


def _ap(runs: Sequence[Run], kind: str) -> str:
    one, two = (run.evaluation[kind] for run in runs)
    steps = [_signed(one[metric], two[metric]) for metric in METRICS]
    rows = [[run.name, *(percent(run.evaluation[kind][m]) for m in METRICS)] for run in runs]
    return table([kind, *METRICS], [*rows, ["difference", *steps]])


def _signed(one: float, two: float) -> str:
    return "" if min(one, two) < 0 else f"{100 * (two - one):+.1f}"


def _categories(runs: Sequence[Run]) -> dict[str, str]:
    """AP of each category of both, the greatest differences first."""
    shared = [kind for kind in runs[0].categories if kind in runs[1].categories]
    if not shared:
        return {}
    kind = shared[-1]
    one, two = (run.categories[kind] for run in runs)
    rows = [(name, one[name]["AP"], two[name]["AP"]) for name in one if name in two]
    rows = sorted((r for r in rows if min(r[1:]) >= 0), key=lambda r: -abs(r[2] - r[1]))
    body = [[name, percent(a), percent(b), _signed(a, b)] for name, a, b in rows[:_CATEGORIES]]
    head = ["", *(run.name for run in runs), "difference"]
    return {f"{kind} AP of the categories (%), the greatest differences first": table(head, body)}


def _shared_truth(runs: Sequence[Run]) -> tuple[Truth | None, str]:
    """What both runs were evaluated on, or why their objects cannot be compared."""
    if any(run.detections is None or not run.evaluated.get("data") for run in runs):
        return None, "Not both runs left their detections."
    paths = [Path(str(run.evaluated["data"])) for run in runs]
    if not all(path.exists() for path in paths):
        return None, "The annotations are not where they were."
    if paths[0] != paths[1] and paths[0].read_bytes() != paths[1].read_bytes():
        return None, "The runs were evaluated on different annotations."
    images = Path(str(runs[0].evaluated["images"]))
    if not images.is_dir():
        return None, "The images are not where they were."
    return Truth(load_coco(paths[0]), images, paths[0]), ""


def _objects(truth: Truth, runs: Sequence[Run], output: Path) -> tuple[str, str, dict[str, int]]:
    """HTML on the objects and on the images that differ most, and the counts."""
    least = [best_threshold(truth.coco, run.detections) for run in runs]
    kept = [[r for r in run.detections if r["score"] >= score] for run, score in zip(runs, least)]
    hits = [_hits(truth, found) for found in kept]
    everything = sum(not a.get("iscrowd", 0) for a in truth.coco.anns.values())
    alone = [[m for key, m in own.items() if key not in other] for own, other in (hits, hits[::-1])]
    counts = {
        "both": len(hits[0]) - len(alone[0]),
        **{f"only {run.name}": len(own) for run, own in zip(runs, alone)},
        "neither": everything - len(hits[0]) - len(alone[1]),
    }
    scores = " and ".join(f"{score:.2f} ({run.name})" for run, score in zip(runs, least))
    text = note(
        f"Found: category right, box IoU at least 0.5, score at least {scores}, where F1 is best."
    )
    text += table(list(counts), [list(counts.values())])
    for run, own in zip(runs, alone):
        if own:
            text += f"<h3>Only {run.name} finds</h3>" + _gallery(truth, own)
    differing = {image: 0 for image in sorted(truth.coco.imgs)}
    for match in (*alone[0], *alone[1]):
        differing[match.image_id] += 1
    shown = sorted(differing, key=lambda image: -differing[image])[:_IMAGES]
    found = {run.name: results for run, results in zip(runs, kept)}
    drawn = draw_comparisons(output / "pictures", truth.coco, truth.images, found, shown)
    pages = (photograph(np.asarray(Image.open(path)), path.stem) for path in drawn)
    return text, note("The images that differ most come first.") + "".join(pages), counts


def _hits(truth: Truth, found: Sequence[dict]) -> dict[int, Match]:
    """What is found, by the object's annotation id."""
    matches = match_detections(truth.coco, found, threshold=0.0)
    return {match.real["id"]: match for match in matches if match.kind == HIT}


def _gallery(truth: Truth, matches: Sequence[Match]) -> str:
    chosen = sorted(matches, key=lambda m: -m.real["bbox"][2] * m.real["bbox"][3])[:_CROPS]
    lines = [
        [
            f"{name_of(truth, m.real)}, {size_of(m.real)}, score {m.found['score']:.2f}",
            file_of(truth, m),
        ]
        for m in chosen
    ]
    return crops([(crop_match(truth.coco, truth.images, m), t) for m, t in zip(chosen, lines)])
