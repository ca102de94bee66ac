"""Find objects in an image or in a folder of images; draws masks, boxes and names.

segroi predict IMAGE_OR_DIR --weights runs/mine/model_final.pth --output DIR
"""

from __future__ import annotations

import argparse

from segroi.cli._model import load_for_prediction
from segroi.utils.suggest import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("source", metavar="IMAGE_OR_DIR", help="an image, or a folder of images")
    add(
        "--weights", required=True, metavar="FILE", help="of segroi train (or its folder), or .onnx"
    )
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
    model, categories = load_for_prediction(args.weights, args.size, args.device)
    entries = predict_files(model, categories, files, args.output, args.threshold)
    count = sum(len(entry["instances"]) for entry in entries)
    print(f"{count} objects in {len(files)} images: {args.output} ({PREDICTIONS})")
    return 0
