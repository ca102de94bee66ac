#!/usr/bin/env python
"""Record the mean and the spread of some runs in a row of a project's results.json.

The runs are folders of either launcher or of ``segroi train``, the same but for their seed. Row and
table must be in the file; scripts/project_tables.py then writes the page.

    python scripts/record_runs.py projects/SBR-CNN/results.json digits SBR-CNN \\
        output/sbr_cnn_1 output/sbr_cnn_2 output/sbr_cnn_3
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from segroi.utils.project_results import record_runs


def main(argv: list[str] | None = None) -> int:
    """Read the command line and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="a results.json")
    parser.add_argument("table", help="id of the table")
    parser.add_argument("row", help="name of the row")
    parser.add_argument("runs", nargs="+", metavar="FOLDER")
    args = parser.parse_args(argv)
    try:
        print(json.dumps(record_runs(args.results, args.table, args.row, args.runs)))
    except (OSError, ValueError) as error:
        print(f"record_runs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
