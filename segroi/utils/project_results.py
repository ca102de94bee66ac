"""Measured rows for projects/*/results.json, from which scripts/project_tables.py makes tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segroi.utils.provenance import PROVENANCE, commit, device_name
from segroi.utils.run_record import read_evaluation
from segroi.utils.suggest import UsageError, existing_folder

COMMIT_DIGITS = 10


def record(
    results_file: Path,
    table_id: str,
    values: Mapping[str, Sequence[float | None]],
    spread: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Fill "ours" of some rows of one table, with commit, device and version of torch.

    Args:
        results_file: a results.json.
        table_id: id of the table.
        values: numbers by the name of the row; None for a number that was not measured.
        spread: the standard deviations of what are means, by the name of the row.

    Raises:
        ValueError: if the file has no such table or the table no such row.
    """
    origin = {
        "commit": commit()[:COMMIT_DIGITS],
        "device": device_name(),
        "versions": f"torch {torch.__version__}",
    }
    rows = {name: {"values": list(numbers), **origin} for name, numbers in values.items()}
    for name, widths in (spread or {}).items():
        rows[name]["spread"] = list(widths)
    _fill(results_file, table_id, rows)


def record_runs(
    results_file: Path, table_id: str, row: str, folders: Sequence[str | Path]
) -> dict[str, Any]:
    """Fill "ours" of one row by the mean of some runs, which differ in their seed.

    Args:
        results_file: a results.json.
        table_id: id of a table whose metrics are those of ``evaluation.json``, as "mask AP75".
            Other metrics stay empty.
        row: name of the row.
        folders: a run's folder each, with ``evaluation.json`` and ``provenance.json``.

    Returns:
        What was written: the means, the standard deviation of a sample as "spread" where there
        is more than one run, and where the runs come from.

    Raises:
        UsageError: a folder is missing or was not evaluated.
        ValueError: see :func:`record`.
    """
    paths = [existing_folder(folder, "run") for folder in folders]
    origins = [_origin(path) for path in paths]
    metrics = _table(json.loads(results_file.read_text()), results_file, table_id)["metrics"]
    numbers = np.array([[_percent(path, metric) for metric in metrics] for path in paths])
    ours: dict[str, Any] = {"values": _rounded(numbers.mean(axis=0))}
    if len(paths) > 1:
        ours |= {"spread": _rounded(numbers.std(axis=0, ddof=1)), "runs": len(paths)}
    for key in origins[0]:
        ours[key] = ", ".join(dict.fromkeys(origin[key] for origin in origins))
    _fill(results_file, table_id, {row: ours})
    return ours


def _origin(folder: Path) -> dict[str, str]:
    file = folder / PROVENANCE
    if not file.exists() or not read_evaluation(folder):
        raise UsageError(f"{folder} is no run that came to its evaluation")
    made_by = json.loads(file.read_text())
    return {
        "commit": made_by["commit"][:COMMIT_DIGITS],
        "device": made_by["device"],
        "versions": f"torch {made_by['packages']['torch']}",
    }


def _percent(folder: Path, metric: str) -> float:
    """A number of a run's evaluation, in percent; NaN where it has none."""
    kind, _, name = metric.partition(" ")
    return 100 * read_evaluation(folder).get(kind, {}).get(name, np.nan)


def _rounded(numbers: np.ndarray) -> list[float | None]:
    return [None if np.isnan(number) else round(float(number), 1) for number in numbers]


def _table(results: dict[str, Any], results_file: Path, table_id: str) -> dict[str, Any]:
    for table in results["tables"]:
        if table["id"] == table_id:
            return table
    raise ValueError(f"record: {results_file} has no table {table_id!r}")


def _fill(results_file: Path, table_id: str, ours: Mapping[str, dict[str, Any]]) -> None:
    """Write "ours" of some rows of one table, by the name of the row."""
    results = json.loads(results_file.read_text())
    rows = {row["name"]: row for row in _table(results, results_file, table_id)["rows"]}
    unknown = set(ours) - set(rows)
    if unknown:
        raise ValueError(f"record: {results_file}, table {table_id!r} has no row {sorted(unknown)}")
    for name, numbers in ours.items():
        rows[name]["ours"] = numbers
    text = json.dumps(results, indent=1, ensure_ascii=False)
    # Lists of numbers stay on one line.
    text = re.sub(r"\[([^\[\]{}]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    results_file.write_text(text + "\n")
