"""The timing of whole systems runs, on a few pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/benchmarks/bench_models.py"


def test_semantic_rows_in_processes_of_their_own(tmp_path):
    words = "--group semantic --rows FCN16 --image 32 64 --repeat 2 --threads 1 --device cpu"
    command = [sys.executable, SCRIPT, *words.split(), "--json", tmp_path / "a.json"]
    subprocess.run(command, check=True)
    (table,) = json.loads((tmp_path / "a.json").read_text())["tables"]
    assert table["parameters"] == {"MobileNet": 839_283, "MobileNet FCN16": 849_942}
    for key in ("milliseconds", "p95", "megabytes"):
        assert all(value > 0 for value in table[key].values())
