"""Make data sets, look at them and check them.

segroi data check FILE --images DIR     what is wrong, where, and what to do
segroi data stats FILE                  counts and sizes, by class
segroi data make digits --output DIR    scenes of handwritten digits, COCO format
segroi data person-crops --output DIR   crops of single persons, out of COCO or Cityscapes files
segroi data shapes FILE                 shapes of the objects, and branches of SSD-ISB for them
"""

from __future__ import annotations

import argparse

from segroi.cli._data_check import add_check
from segroi.cli._data_stats import add_stats
from segroi.cli._person_crops import add_person_crops
from segroi.cli._shapes import add_shapes
from segroi.utils.suggest import UsageError, unknown

MAKERS = ("digits",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = actions.add_parser("make", help="make a data set from what is installed")
    make.add_argument("name", help=f"which: {', '.join(MAKERS)}")
    make.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    make.add_argument("--train", type=int, default=400, help="training images (%(default)s)")
    make.add_argument("--val", type=int, default=60, help="validation images (%(default)s)")
    make.add_argument("--size", type=int, default=160, help="side in px (%(default)s)")
    make.add_argument("--seed", type=int, default=0, help="same seed, same data (%(default)s)")
    make.set_defaults(run=_make)
    add_check(actions)
    add_stats(actions)
    add_person_crops(actions)
    add_shapes(actions)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    return args.run(args)


def _make(args: argparse.Namespace) -> int:
    """Make the data set and tell where it is."""
    if args.name not in MAKERS:
        raise UsageError(unknown("data set", args.name, MAKERS))
    if args.size < 64 or args.train < 1 or args.val < 0:
        raise UsageError("--size must be at least 64, --train at least 1, --val at least 0")
    from segroi.utils.digits import SceneSpec, make_digits

    spec = SceneSpec(size=(args.size, args.size))
    paths = make_digits(args.output, args.train, args.val, args.seed, spec)
    for what, path in paths.items():
        print(f"{what:7s} {path}")
    return 0
