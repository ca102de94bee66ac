"""Hand training over to Detectron2's lazy launcher, and read back what it leaves."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from segroi.cli._systems import lazy_configs
from segroi.utils.run_record import Evaluation, read_evaluation, read_rows
from segroi.utils.suggest import UsageError, existing_file, unknown

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "scripts" / "lazyconfig_train_net.py"
DIGITS = ROOT / "configs" / "quick" / "mask_rcnn_groie_digits.py"
CATEGORIES = "categories.json"  # the launchers leave it beside the weights


def train_on_detectron2(args: argparse.Namespace) -> int:
    """Run the launcher with what ``segroi train`` was asked for; returns its exit status."""
    check_installed()
    return subprocess.run(launcher_command(args), check=False).returncode


def check_installed() -> None:
    """Raise a UsageError where Detectron2 or its launcher is missing."""
    if importlib.util.find_spec("detectron2") is None:
        raise UsageError("--host d2 needs Detectron2: segroi doctor tells how to install it")
    if not LAUNCHER.exists():
        raise UsageError(f"--host d2 needs a checkout of segroi: there is no {LAUNCHER}")


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
    for flag in ("resume", "no_data_check", "trust_config"):
        if getattr(args, flag):
            command.append(f"--{flag.replace('_', '-')}")
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


def evaluate_on_detectron2(
    weights: Path, data: str, images: str, output: Path, device: str = ""
) -> Evaluation:
    """Run the launcher that wrote some weights once more, on other data.

    Args:
        weights: in the folder of the run.
        data: COCO-format annotations.
        images: folder of the images.
        output: folder to write.
        device: "cpu", "cuda", ...; default: that of the run where there is one.
    """
    check_installed()
    from segroi.d2.predict import CONFIG, is_lazy

    keys = ("train.init_checkpoint={}", "train.output_dir={}", "train.device={}")
    launcher, values = LAUNCHER, (weights, output, device)
    settings = [key.format(value) for key, value in zip(keys, values) if value]
    if not is_lazy(weights.parent):
        launcher = LAUNCHER.with_name("train_net.py")
        pairs = zip(("MODEL.WEIGHTS", "OUTPUT_DIR", "MODEL.DEVICE"), values)
        settings = [str(word) for pair in pairs if pair[1] for word in pair]
    command = [sys.executable, str(launcher), "--config-file", str(weights.parent / CONFIG)]
    command += ["--eval-only", "--data-json", data, "--images", images, *settings]
    _watch(command, output, "evaluate", None)
    return read_evaluation(output)


def run_digits(
    folder: Path, data: Mapping[str, Path], iterations: int | None
) -> list[dict[str, float]]:
    """Train the quick config on digit scenes, evaluated before and after.

    Args:
        folder: where the run goes; emptied first.
        data: what ``make_digits`` returned.
        iterations: other length than the config's.

    Returns:
        The logged iterations.
    """
    import shutil

    check_installed()
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, str(LAUNCHER), "--config-file", str(DIGITS)]
    command += ["--data-json", str(data["train"]), "--val-json", str(data["val"])]
    command += ["--images", str(data["images"])]
    before = folder / "before"
    untrained = ["--eval-only", "train.init_checkpoint=", f"train.output_dir={before}"]
    _watch([*command, *untrained], before, "before", None)
    total = iterations or _iterations()
    settings = [f"train.max_iter={total}", "train.log_period=5"]
    _watch([*command, f"train.output_dir={folder}", *settings], folder, "train", total)
    return read_rows(folder)


def _watch(command: list[str], folder: Path, title: str, total: int | None) -> None:
    """Run the launcher, its words in ``launcher.log``, its iterations in a progress bar."""
    from segroi.utils.progress import Progress

    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "launcher.log"
    with log.open("w") as words, Progress(title, total or 1) as progress:
        child = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT)
        try:
            while child.poll() is None:
                time.sleep(0.5)
                for row in read_rows(folder)[-1:]:
                    progress.move_to(int(row["iteration"]), row)
        finally:
            child.terminate()
        progress.move_to(total or 1)
    if child.returncode != 0:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise UsageError(
            f"Detectron2 stopped with status {child.returncode}:\n{tail}\n(all: {log})"
        )


def _iterations() -> int:
    from segroi.d2.launch import max_iterations

    return max_iterations(str(DIGITS))


def _config(args: argparse.Namespace) -> Path:
    if args.config:
        return existing_file(args.config, "config file")
    known = lazy_configs()
    if args.model not in known:
        raise UsageError(unknown("model of --host d2", str(args.model), known))
    return known[args.model]
