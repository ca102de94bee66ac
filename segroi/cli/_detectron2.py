"""Hand a training run over to Detectron2's lazy launcher."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from segroi.utils.suggest import UsageError, existing_file, unknown

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "scripts" / "lazyconfig_train_net.py"
SUFFIX = "_R_50_FPN_1x.py"


def train_on_detectron2(args: argparse.Namespace) -> int:
    """Run the launcher with what ``segroi train`` was asked for; returns its exit status."""
    if importlib.util.find_spec("detectron2") is None:
        raise UsageError("--host d2 needs Detectron2: segroi doctor tells how to install it")
    if not LAUNCHER.exists():
        raise UsageError(f"--host d2 needs a checkout of segroi: there is no {LAUNCHER}")
    return subprocess.run(launcher_command(args), check=False).returncode


def launcher_command(args: argparse.Namespace) -> list[str]:
    """The launcher's command line."""
    for option in ("data", "images", "output"):
        if not getattr(args, option):
            raise UsageError(f"--{option} is missing")
    for option in ("size", "optimizer", "backbone", "backbone_weights"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is for --host tv: a lazy config says it its own way")
    command = [sys.executable, str(LAUNCHER), "--config-file", str(_config(args))]
    command += ["--data-json", args.data, "--images", args.images]
    if args.val_data:
        command += ["--val-json", args.val_data, "--val-images", args.val_images or args.images]
    if args.resume:
        command.append("--resume")
    values = {
        "train.output_dir": args.output,
        "train.max_iter": args.iterations,
        "train.seed": args.seed,
        "train.device": args.device,
        "dataloader.train.total_batch_size": args.batch_size,
        "dataloader.train.num_workers": args.workers,
        "optimizer.lr": args.lr,
    }
    command += [f"{key}={value}" for key, value in values.items() if value is not None]
    return command + args.settings


def _config(args: argparse.Namespace) -> Path:
    if args.config:
        return existing_file(args.config, "config file")
    folder = ROOT / "configs" / "d2"
    known = {p.name.removesuffix(SUFFIX): p for p in folder.glob(f"*{SUFFIX}")}
    if args.model not in known:
        raise UsageError(unknown("model of --host d2", str(args.model), known))
    return known[args.model]
