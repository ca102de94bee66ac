"""``segroi data stats``: how many, how large, how often."""

from __future__ import annotations

import argparse
import json


def add_stats(actions: argparse._SubParsersAction) -> None:
    """Add the action and its options to ``segroi data``."""
    stats = actions.add_parser("stats", help="counts and sizes, by class")
    stats.add_argument("json_file", metavar="FILE", help="annotations in COCO format")
    stats.add_argument("--plot", metavar="PNG", help="draw the distributions")
    stats.add_argument("--json", action="store_true", help="print as JSON")
    stats.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the statistics; draw them if asked."""
    from segroi.utils.coco import load_coco
    from segroi.utils.dataset_statistics import dataset_statistics, draw_statistics

    coco = load_coco(args.json_file)
    numbers = dataset_statistics(coco)
    if args.plot:
        draw_statistics(coco, args.plot)
    if args.json:
        print(json.dumps(numbers, indent=2))
        return 0
    _print(numbers)
    if args.plot:
        print(f"plot    {args.plot}")
    return 0


def _print(numbers: dict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    images, instances = numbers["images"], numbers["instances"]
    print(
        f"{images['count']} images ({images['empty']} without instances), "
        f"{instances['count']} instances, {instances['crowds']} crowds, "
        f"{len(numbers['classes'])} classes"
    )
    for title, values in (
        ("image width, px", images["width"]),
        ("image height, px", images["height"]),
        ("instances an image", instances["per_image"]),
        ("instance side, px", instances["side"]),
    ):
        text = "  ".join(f"{name} {value:g}" for name, value in values.items())
        print(f"  {title:20s}{text}")
    areas = instances["areas"]
    print("  " + "  ".join(f"{name} {count}" for name, count in areas.items()))
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for name in ("instances", "images", "share", "median side, px"):
        table.add_column(name, justify="right")
    for row in numbers["classes"]:
        cells = (row["instances"], row["images"], f"{row['share']:.1%}", f"{row['side']:.0f}")
        table.add_row(escape(row["name"]), *map(str, cells))
    Console(highlight=False).print(table)
