"""Measured rows for projects/*/results.json, from which scripts/project_tables.py makes tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from segroi.utils.provenance import commit, device_name


def record(results_file: Path, table_id: str, values: Mapping[str, Sequence[float | None]]) -> None:
    """Fill "ours" of some rows of one table, with commit, device and version of torch.

    Args:
        results_file: a results.json.
        table_id: id of the table.
        values: numbers by the name of the row; None for a number that was not measured.

    Raises:
        ValueError: if the file has no such table or the table no such row.
    """
    results = json.loads(results_file.read_text())
    rows = {
        row["name"]: row
        for table in results["tables"]
        if table["id"] == table_id
        for row in table["rows"]
    }
    unknown = set(values) - set(rows)
    if unknown:
        raise ValueError(f"record: {results_file}, table {table_id!r} has no row {sorted(unknown)}")
    for name, numbers in values.items():
        rows[name]["ours"] = {
            "values": list(numbers),
            "commit": commit()[:10],
            "device": device_name(),
            "versions": f"torch {torch.__version__}",
        }
    text = json.dumps(results, indent=1, ensure_ascii=False)
    # Lists of numbers stay on one line.
    text = re.sub(r"\[([^\[\]{}]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    results_file.write_text(text + "\n")
