"""``segroi data shapes``: encompassing shapes of a data set, and branches that suit it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from segroi.utils.suggest import UsageError

_KEPT = ("category", "images", "matching")


def add_shapes(actions: argparse._SubParsersAction) -> None:
    """Add the action and its options to ``segroi data``."""
    shapes = actions.add_parser("shapes", help="shapes of the objects, for the branches of SSD-ISB")
    shapes.add_argument("json", metavar="FILE", help="instances in COCO format")
    shapes.add_argument("--category", help="the only category to look at, for example person")
    shapes.add_argument("--grid", type=int, default=20, help="cells a side (%(default)s)")
    shapes.add_argument("--branches", type=int, default=10, help="to suggest (%(default)s)")
    shapes.add_argument(
        "--memory", type=float, default=2.0, help="GiB for the crops of full branches (%(default)s)"
    )
    shapes.add_argument("--plot", metavar="PNG", help="draw shapes and suggested branches")
    shapes.add_argument("--subset", metavar="FILE", help="write a part of the data set")
    shapes.add_argument(
        "--keep",
        choices=_KEPT,
        default="category",
        help="of --subset: all images that show the category; the images with a shape of the "
        "thesis's Table 5.1; or these with their matching annotations only (%(default)s)",
    )
    shapes.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the statistics; draw and write what was asked for."""
    if args.grid < 1 or args.branches < 1 or args.memory <= 0:
        raise UsageError("--grid and --branches must be at least 1, --memory more than 0")
    from segroi.modeling.ssd.families import FREQUENT
    from segroi.utils.coco import load_coco
    from segroi.utils.shape_statistics import (
        annotation_shapes,
        branch_loads,
        count_shapes,
        draw_shapes,
        shape_subset,
        suggest_shapes,
    )

    coco = load_coco(args.json)
    found = annotation_shapes(coco, args.category, args.grid)
    counts = count_shapes(found)
    if not counts:
        raise UsageError(f"{args.json}: no annotations")
    total = sum(counts.values())
    print(f"{total} annotations in {len(found)} images, {len(counts)} shapes (height x width)")
    for h, w in sorted(FREQUENT, key=lambda s: -counts[s]):
        print(f"  {h}x{w:<4d} {counts[h, w]:8d}")
    print(f"  other  {total - sum(counts[s] for s in FREQUENT):8d}")
    shapes = suggest_shapes(counts, args.branches, int(args.memory * 2**30))
    print(f"suggested branches, from large to small ({args.memory:g} GiB):")
    for (h, w), load in zip(shapes, branch_loads(counts, shapes)):
        print(f"  {h}x{w:<4d} {load:8d}  {load / total:6.1%}")
    if args.plot:
        print(f"plot    {draw_shapes(args.plot, counts, shapes)}")
    if args.subset:
        wanted = None if args.keep == "category" else FREQUENT
        subset = shape_subset(coco, args.category, wanted, args.keep == "matching", args.grid)
        Path(args.subset).write_text(json.dumps(subset))
        print(f"subset  {args.subset} ({len(subset['images'])} images)")
    return 0
