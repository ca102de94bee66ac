"""The report of a launcher's run, made of what Detectron2 left in its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from segroi.utils.coco import load_coco
from segroi.utils.provenance import PROVENANCE, provenance, write_provenance
from segroi.utils.report import table
from segroi.utils.run_record import Truth, read_rows, record_evaluation
from segroi.utils.run_report import report_run

INFERENCE = "inference"  # the evaluators' folder in that of the run
DETECTIONS = "coco_instances_results.json"
KINDS = {"bbox": "box", "segm": "mask"}
_SECONDS = "seconds.json"


class TimedLoader:
    """A test loader that writes how long a pass over it took, the model's work included."""

    def __init__(self, loader: Iterable, output: str | Path) -> None:
        """Wrap a loader.

        Args:
            loader: of known length.
            output: the run's folder.
        """
        assert isinstance(loader, Sized)
        self.loader = loader
        self.file = Path(output) / INFERENCE / _SECONDS

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        started = time.perf_counter()
        yield from self.loader
        if comm.is_main_process():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(time.perf_counter() - started))


def write_report(output: str | Path, dataset: str, results: Mapping[str, Any], name: str) -> None:
    """Record the evaluation of a run and write its ``report.html``; the main process does it.

    Args:
        output: the run's folder.
        dataset: name of the dataset that was evaluated on, the last one where there are several.
        results: what the evaluators returned.
        name: of the model, for the heading of the page.
    """
    if not comm.is_main_process():
        return
    output = Path(output)
    found, seconds = output / INFERENCE / DETECTIONS, output / INFERENCE / _SECONDS
    results = results.get(dataset, results)
    kinds = [kind for task, kind in KINDS.items() if task in results]
    truth, title = None, f"{name} on {dataset}"
    if kinds and found.exists():
        metadata = MetadataCatalog.get(dataset)
        data = Path(metadata.json_file)
        truth = Truth(load_coco(data), Path(metadata.image_root), data)
        title = f"{name} on {data.parent.name}/{data.name}"
        taken = json.loads(seconds.read_text()) if seconds.exists() else None
        record_evaluation(output, truth, json.loads(found.read_text()), kinds, taken)
    if not (output / PROVENANCE).exists():  # no training came before
        write_provenance(output)
    more = {} if truth else {"Results": _numbers(results)}
    report_run(output, title, read_rows(output), truth, provenance(), more=more)


def _numbers(results: Mapping[str, Any]) -> str:
    """Whatever an evaluator counted, for tasks other than detection."""
    rows = [
        [f"{task} {name}", f"{value:.2f}"]
        for task, values in results.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if isinstance(value, int | float)
    ]
    return table(["", ""], rows) if rows else ""
