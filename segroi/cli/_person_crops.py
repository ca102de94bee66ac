"""``segroi data person-crops``: crops of single persons for two-class segmentation."""

from __future__ import annotations

import argparse
from pathlib import Path

from segroi.utils.suggest import UsageError

SIZES = {"320x192": (320, 192), "160x96": (160, 96)}


def add_person_crops(actions: argparse._SubParsersAction) -> None:
    """Add the action and its options to ``segroi data``."""
    crops = actions.add_parser("person-crops", help="cut single persons out of a data set")
    crops.add_argument("--json", metavar="FILE", help="instances in COCO format, with --images")
    crops.add_argument("--images", metavar="DIR", help="the photographs of --json")
    crops.add_argument(
        "--detections", metavar="FILE", help="use these boxes (COCO results) for --json's instances"
    )
    crops.add_argument("--cityscapes", metavar="DIR", help="folder of leftImg8bit and gtFine")
    crops.add_argument("--split", default="train", help="of Cityscapes (%(default)s)")
    crops.add_argument("--category", default="person", help="of --json (%(default)s)")
    crops.add_argument("--size", default="320x192", choices=SIZES, help="px (%(default)s)")
    crops.add_argument(
        "--background", type=float, default=0.0, help="added on every side (%(default)s of it)"
    )
    crops.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    crops.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the crops and tell how many."""
    if (args.json is None) == (args.cityscapes is None):
        raise UsageError("person-crops needs either --json FILE --images DIR or --cityscapes DIR")
    if args.json is not None and args.images is None:
        raise UsageError("--json needs --images DIR")
    if not 0 <= args.background <= 1:
        raise UsageError("--background must be between 0 and 1")
    if args.detections and args.json is None:
        raise UsageError("--detections needs --json FILE")
    for path in filter(None, (args.json, args.images, args.detections, args.cityscapes)):
        if not Path(path).exists():
            raise UsageError(f"{path} does not exist")
    from segroi.utils.person_crops import cityscapes_people, coco_people, make_person_crops

    if args.json is not None:
        people = coco_people(Path(args.json), Path(args.images), args.category, args.detections)
    else:
        people = cityscapes_people(Path(args.cityscapes), args.split)
    category = args.category if args.json is not None else "person"
    count = make_person_crops(
        people, Path(args.output), SIZES[args.size], args.background, category
    )
    print(f"crops   {count}\nfolder  {args.output}")
    return 0 if count else 1
