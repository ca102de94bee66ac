"""Find objects in an image or in a folder of images; draws masks, boxes and names.

segroi predict IMAGE_OR_DIR --weights runs/mine/model_final.pth --output DIR
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from segroi.utils.suggest import UsageError

if TYPE_CHECKING:
    from torch import nn

D2_CATEGORIES = "categories.json"  # Detectron2's launchers leave it beside the weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("source", metavar="IMAGE_OR_DIR", help="an image, or a folder of images")
    add("--weights", required=True, metavar="FILE", help="what segroi train wrote (or its folder)")
    add("--output", required=True, metavar="DIR", help="folder for pictures and predictions.json")
    add("--threshold", type=float, default=0.5, help="lowest score that is shown (%(default)s)")
    add("--size", type=int, metavar="PX", help="short side, if other than in training")
    add("--device", default="", metavar="NAME", help="cpu, cuda, cuda:1, ...")


def run(args: argparse.Namespace) -> int:
    """Predict and tell where the pictures are."""
    if not 0 <= args.threshold <= 1:
        raise UsageError(f"--threshold must be in 0..1, got {args.threshold}")
    from segroi.tv.predict import PREDICTIONS, predict_files
    from segroi.utils.images import list_images

    files = list_images(args.source)
    model, categories = _load(args)
    entries = predict_files(model, categories, files, args.output, args.threshold)
    count = sum(len(entry["instances"]) for entry in entries)
    print(f"{count} objects in {len(files)} images: {args.output} ({PREDICTIONS})")
    return 0


def _load(args: argparse.Namespace) -> tuple[nn.Module, list[dict]]:
    """The model of either host, and its categories."""
    from segroi.tv.checkpoint import load_model
    from segroi.tv.engine import pick_device
    from segroi.tv.run import weights_of

    weights, device = weights_of(args.weights), pick_device(args.device)
    if not (weights.parent / D2_CATEGORIES).exists():
        overrides = {} if args.size is None else {"size": args.size}
        model, info = load_model(weights, **overrides)
        return model.to(device), info["categories"]
    if args.size is not None:
        raise UsageError("--size is for weights of torchvision: a run of Detectron2 has its own")
    from segroi.d2.predict import load_run

    model, names = load_run(weights, device)
    return model, [{"name": name} for name in names]
