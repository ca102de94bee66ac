"""The command line that both launchers share."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from detectron2.config import LazyConfig
from detectron2.engine import default_argument_parser, launch

from segroi.d2.data import add_data_arguments


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's options and those for the user's own data."""
    parser = default_argument_parser()
    add_data_arguments(parser)
    return parser


def max_iterations(config_file: str) -> int:
    """Length of the training of a lazy config."""
    return int(LazyConfig.load(config_file).train.max_iter)


def invoke(main: Callable[[argparse.Namespace], object]) -> None:
    """Read the command line and run ``main`` in one process per GPU."""
    args = argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
