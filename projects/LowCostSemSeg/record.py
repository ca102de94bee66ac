"""Writes measured rows into results.json, from which scripts/project_tables.py makes the tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from segroi.utils.provenance import commit, device_name

RESULTS = Path(__file__).with_name("results.json")


def record(table_id: str, values: dict[str, list[float | None]]) -> None:
    """Fill "ours" of the named rows of one table."""
    results = json.loads(RESULTS.read_text())
    table = next(t for t in results["tables"] if t["id"] == table_id)
    for row in table["rows"]:
        if row["name"] in values:
            row["ours"] = {
                "values": values[row["name"]],
                "commit": commit()[:10],
                "device": device_name(),
                "versions": f"torch {torch.__version__}",
            }
    text = json.dumps(results, indent=1)
    # Lists of numbers stay on one line.
    text = re.sub(r"\[([^\[\]{}]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    RESULTS.write_text(text + "\n")
