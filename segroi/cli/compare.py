"""Put two runs side by side: settings, curves, AP, and what one finds and the other misses.

segroi compare runs/mask_rcnn runs/mask_rcnn_groie --output runs/comparison

A run is a folder that training or evaluation of either host wrote.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("first", metavar="RUN_A", help="folder of a run")
    add("second", metavar="RUN_B", help="folder of another one")
    add("--output", metavar="DIR", help="default: compare-<RUN_A> in RUN_B")
    add("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare, print the AP and tell where the page is."""
    from segroi.utils.compare import REPORT, compare_runs, read_run

    names = [Path(folder).resolve().name for folder in (args.first, args.second)]
    if names[0] == names[1]:
        names = [f"A {names[0]}", f"B {names[1]}"]
    first, second = read_run(args.first, names[0]), read_run(args.second, names[1])
    output = Path(args.output or Path(args.second) / f"compare-{Path(args.first).resolve().name}")
    numbers = compare_runs(first, second, output)
    if args.json:
        print(json.dumps(numbers, indent=2))
        return 0
    for kind, ap in numbers["ap"].items():
        one, two, step = (100 * value for value in ap["AP"])
        print(f"{kind:5s} AP {one:.1f} -> {two:.1f} ({step:+.1f})")
    for name, count in numbers["objects"].items():
        print(f"{count:6d} objects found by {name}")
    print(f"report {output / REPORT}")
    return 0
