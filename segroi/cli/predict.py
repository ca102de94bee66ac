"""Find objects in images, in a video or before a camera; draws masks, boxes and names.

segroi predict IMAGE_OR_DIR --weights runs/mine/model_final.pth --output DIR
segroi predict video.mp4 --weights runs/mine --output DIR    a video with the frame rate in it
segroi predict 0 --weights runs/mine --output DIR --show     the first camera, in a window
"""

from __future__ import annotations

import argparse
import json

from segroi.cli._model import load_for_prediction
from segroi.utils.suggest import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="image, folder of images, video, or number of a camera")
    add(
        "--weights", required=True, metavar="FILE", help="of segroi train (or its folder), or .onnx"
    )
    add("--output", required=True, metavar="DIR", help="folder for pictures and predictions.json")
    add("--threshold", type=float, default=0.5, help="lowest score that is shown (%(default)s)")
    add("--show", action="store_true", help="video and camera: a live window, too (q closes it)")
    add("--size", type=int, metavar="PX", help="short side, if other than in training")
    add("--device", default="", metavar="NAME", help="cpu, cuda, cuda:1, ...")
    add("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    """Predict and tell where the pictures are."""
    if not 0 <= args.threshold <= 1:
        raise UsageError(f"--threshold must be in 0..1, got {args.threshold}")
    from segroi.tv.predict import CONTENT, PREDICTIONS, is_semantic, predict_files
    from segroi.utils.images import list_images
    from segroi.utils.video import is_video

    if is_video(args.source):
        return _video(args)
    if args.show:
        raise UsageError("--show is for a video or a camera")
    files = list_images(args.source)
    model, categories = load_for_prediction(args.weights, args.size, args.device, args.threshold)
    entries = predict_files(model, categories, files, args.output, args.threshold)
    if args.json:
        print(json.dumps(entries))
        return 0
    count = sum(len(entry[CONTENT[is_semantic(model)]]) for entry in entries)
    what = "classes" if is_semantic(model) else "objects"
    print(f"{count} {what} in {len(files)} images: {args.output} ({PREDICTIONS})")
    return 0


def _video(args: argparse.Namespace) -> int:
    from segroi.tv.video import FRAMES, predict_video

    model, categories = load_for_prediction(args.weights, args.size, args.device, args.threshold)
    target, count, rate = predict_video(
        model, categories, args.source, args.output, args.threshold, args.show
    )
    if args.json:
        print(json.dumps({"frames": count, "frames_per_second": rate, "video": str(target)}))
        return 0
    print(f"{count} frames, {rate:.1f} a second: {target} ({FRAMES} beside it)")
    return 0
