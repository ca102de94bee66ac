"""Train a model on your own COCO-format data.

segroi train --data train.json --images DIR --model mask_rcnn_groie --output runs/mine
    --val-data val.json --val-images DIR --backbone-weights mobilenet_v2.pth

Further words are key=value: fields of the configuration (batch_size=4 model_args.channels=128), or
of the lazy config with --host d2 (model.roi_heads.mask_on=False).
"""

from __future__ import annotations

import argparse
import json

from segroi.utils.suggest import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("--data", metavar="JSON", help="COCO-format annotations to train on, or label maps' folder")
    add("--images", metavar="DIR", help="their images")
    add("--val-data", metavar="JSON", help="annotations to evaluate on after training")
    add("--val-images", metavar="DIR", help="their images (default: --images)")
    add("--model", metavar="NAME", help="see segroi models")
    add("--output", metavar="DIR", help="folder of the run")
    add("--config", metavar="FILE", help="yaml with any of these (--host d2: a lazy config)")
    add("--host", choices=("tv", "d2"), default="tv", help="torchvision (default) or Detectron2")
    add("--resume", action="store_true", help="go on with the run in --output")
    add("--iterations", type=int, metavar="N")
    add("--batch-size", type=int, metavar="N", help="images an iteration")
    add("--size", type=int, metavar="PX", help="short side that images are resized to")
    add("--lr", type=float, help="peak learning rate")
    add("--optimizer", metavar="NAME", help="sgd, adamw or tf_rmsprop")
    add("--backbone", metavar="NAME", help="torchvision network")
    add("--backbone-weights", metavar="FILE", help="ImageNet weights of that network")
    add("--workers", type=int, metavar="N", help="processes that read images")
    add("--seed", type=int)
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, ...")
    add("--before", action="store_true", help="evaluate the untrained model too")
    add("--no-data-check", action="store_true", help="leave out the check of the data")
    add("--trust-config", action="store_true", help="--host d2: run a lazy config from anywhere")
    add("--replay", metavar="FILE", help="only run the last batch of a post-mortem once more")
    add("--json", action="store_true", help="print the results as JSON (torchvision)")
    add("settings", nargs="*", metavar="KEY=VALUE", help="anything else")


def run(args: argparse.Namespace) -> int:
    """Train, evaluate, and tell where the results are."""
    if args.replay:
        return _replay(args)
    if args.host == "d2":
        from segroi.cli._detectron2 import train_on_detectron2

        return train_on_detectron2(args)
    from segroi.cli._systems import check_name
    from segroi.tv.postmortem import TrainingStopped
    from segroi.tv.run import train
    from segroi.tv.semantic import read_semantic
    from segroi.utils.run_report import REPORT, read_evaluation

    config = load_arguments(args)
    check_name(config.model)
    try:
        weights = train(config, args.resume, args.before, not args.no_data_check)
    except TrainingStopped as error:
        print(f"segroi: training stopped: {error}")
        return error.status
    folder = weights.parent
    if args.json:
        numbers = read_evaluation(folder) or read_semantic(folder)
        where = {"weights": str(weights), "report": str(folder / REPORT)}
        print(json.dumps({**where, "evaluation": numbers}, indent=2))
        return 0
    for kind, numbers in read_evaluation(folder).items():
        print(f"{kind:5s} AP {100 * numbers['AP']:.1f}  AP50 {100 * numbers['AP50']:.1f}")
    for name, value in read_semantic(folder).get("all", {}).items():
        print(f"{name:6s} {100 * value:.1f}" if value >= 0 else f"{name:6s} -")
    print(f"weights {weights}\nreport  {folder / REPORT}")
    return 0


def _replay(args: argparse.Namespace) -> int:
    """Run the last batch of a post-mortem of either host."""
    from pathlib import Path

    if (Path(args.replay).parent / "categories.json").exists():  # left by Detectron2's launchers
        from segroi.d2.postmortem import replay as replay_d2

        print(replay_d2(args.replay))
        return 0
    from segroi.tv.engine import pick_device
    from segroi.tv.postmortem import replay

    print(replay(args.replay, pick_device(args.device or "")))
    return 0


def load_arguments(args: argparse.Namespace) -> object:
    """The ``TrainConfig`` that the command line asks for."""
    from omegaconf import OmegaConf

    from segroi.tv.config import load_config

    bad = [word for word in args.settings if "=" not in word]
    if bad:
        raise UsageError(f"{bad[0]!r} is no KEY=VALUE")
    changes = OmegaConf.to_container(OmegaConf.from_dotlist(args.settings))
    model_args = changes.setdefault("model_args", {})
    for name in ("size", "backbone"):
        if getattr(args, name) is not None:
            model_args[name] = getattr(args, name)
    for name in (
        *("data", "images", "val_data", "val_images", "model", "output", "iterations", "seed"),
        *("batch_size", "lr", "optimizer", "backbone_weights", "workers", "device"),
    ):
        if getattr(args, name) is not None:
            changes[name] = getattr(args, name)
    return load_config(args.config, **changes)
