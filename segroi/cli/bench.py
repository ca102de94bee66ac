"""Time an operator beside its peers: equal results first, then rows that take turns.

segroi bench                                            which there are
segroi bench multi_level_roi_align --threads 1 2        further words go to the benchmark
segroi bench multi_level_roi_align --help               and are told there
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from segroi.utils.suggest import UsageError, unknown

FOLDER = Path(__file__).parents[2] / "scripts" / "benchmarks"
PREFIX = "bench_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("operator", nargs="?", help="what to time; none lists them")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="options of the benchmark")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark of a checkout; returns its exit status."""
    known = {path.stem.removeprefix(PREFIX): path for path in FOLDER.glob(f"{PREFIX}*.py")}
    if not known:
        raise UsageError(f"segroi bench needs a checkout of segroi: there is no {FOLDER}")
    if args.operator is None:
        print("\n".join(sorted(known)))
        return 0
    if args.operator not in known:
        raise UsageError(unknown("benchmark", args.operator, known))
    command = [sys.executable, str(known[args.operator]), *args.words]
    return subprocess.run(command, check=False).returncode
