"""The command line that both launchers share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from detectron2.engine import default_argument_parser, launch
from detectron2.utils import comm

from segroi.d2.checkpoint import TRUST as TRUST_WEIGHTS
from segroi.d2.data import add_data_arguments, check_data
from segroi.d2.postmortem import replay
from segroi.d2.trust import TRUST as TRUST_CONFIG
from segroi.d2.trust import load_lazy_config
from segroi.utils.suggest import UsageError


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's options and those for the user's own data."""
    parser = default_argument_parser()
    add_data_arguments(parser)
    group = parser.add_argument_group("files from elsewhere, and runs that failed")
    group.add_argument(TRUST_CONFIG, action="store_true", help="run a lazy config from anywhere")
    group.add_argument(
        TRUST_WEIGHTS, action="store_true", help="run what a weights file asks to be run"
    )
    group.add_argument("--weights-sha256", default="", metavar="HEX", help="of the weights")
    group.add_argument("--replay", metavar="FILE", help="the last batch of a post-mortem once more")
    return parser


def max_iterations(config_file: str) -> int:
    """Length of the training of a lazy config."""
    return int(load_lazy_config(config_file).train.max_iter)


def invoke(main: Callable[[argparse.Namespace], object]) -> None:
    """Read the command line and run ``main`` in one process per GPU.

    Where torchrun has started the processes, they join; else Detectron2's ``launch`` starts them.
    Mistakes of the user end the process with a text, without a traceback.
    """
    args = argument_parser().parse_args()
    try:
        if args.replay:
            print(replay(args.replay))
            return
        if os.environ.get("RANK", "0") == "0":
            check_data(args)
    except UsageError as error:
        raise SystemExit(f"segroi: {error}") from None
    run = partial(_explained, main)
    if dist.is_torchelastic_launched():
        _in_process_group(run, args)
        return
    launch(
        run,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _in_process_group(
    main: Callable[[argparse.Namespace], object], args: argparse.Namespace
) -> None:
    """Join the processes that torchrun started, by NCCL on GPUs and by gloo on CPUs."""
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        main(args)
    finally:
        dist.destroy_process_group()


def _explained(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Run ``main``; without a traceback where the text says it all."""
    # Attention that has made up its mind sends back numbers too small for float32, with which a
    # CPU takes ten times as long for a convolution. They count as 0.
    torch.set_flush_denormal(True)
    try:
        main(args)
    except UsageError as error:
        raise SystemExit(f"segroi: {error}") from None
