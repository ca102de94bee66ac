"""Evaluate a trained model: COCO's twelve numbers for boxes and masks, or the IoU of classes.

segroi eval --weights runs/mine/model_final.pth --data val.json --images DIR

Without --data: on the validation data of the training (or else on its training data). Runs of
Detectron2's launchers are evaluated by the launcher that made them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from segroi.utils.suggest import UsageError, existing_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="what segroi train wrote (or its folder)")
    add("--data", metavar="JSON", help="annotations or label maps (default: those of training)")
    add("--images", metavar="DIR", help="their images")
    add("--output", metavar="DIR", help="default: evaluation-<data> beside the weights")
    add("--size", type=int, metavar="PX", help="short side, if other than in training")
    add("--device", default="", metavar="NAME", help="cpu, cuda, cuda:1, ...")
    add("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the numbers and tell where the report is."""
    from segroi.cli._detectron2 import CATEGORIES, evaluate_on_detectron2
    from segroi.tv.run import evaluate_file, weights_of
    from segroi.utils.coco import METRICS
    from segroi.utils.run_report import REPORT

    weights = existing_file(weights_of(args.weights), "weights file")
    data, images = _data(args, weights)
    output = Path(args.output or weights.parent / f"evaluation-{Path(data).stem}")
    if (weights.parent / CATEGORIES).exists():
        if args.size is not None:
            raise UsageError("--size is for runs of torchvision: a run of Detectron2 has its own")
        numbers = evaluate_on_detectron2(weights, data, images, output, args.device)
    else:
        overrides = {} if args.size is None else {"size": args.size}
        numbers = evaluate_file(weights, data, images, output, args.device, **overrides)
    if args.json:
        print(json.dumps(numbers, indent=2))
        return 0
    if "IoU" in numbers:  # semantic segmentation
        for name, value in {**numbers["IoU"], **numbers["all"]}.items():
            print(f"{name:16s}{_cell(value)}")
    else:
        print(f"{'':5s}" + "".join(f"{name:>7s}" for name in METRICS))
        for kind, values in numbers.items():
            print(f"{kind:5s}" + "".join(_cell(values[name]) for name in METRICS))
    print(f"report {output / REPORT}")
    return 0


def _cell(value: float) -> str:
    """A number of 0 to 1 in percent; "-" where there was nothing to measure."""
    return f"{100 * value:7.1f}" if value >= 0 else f"{'-':>7s}"


def _data(args: argparse.Namespace, weights: Path) -> tuple[str, str]:
    """Annotations and images: those asked for, or those that the training evaluated on."""
    from segroi.utils.run_record import read_evaluated

    if bool(args.data) != bool(args.images):
        raise UsageError("--data and --images go together")
    if args.data:
        return args.data, args.images
    evaluated = read_evaluated(weights.parent)
    if evaluated.get("data"):
        return evaluated["data"], evaluated["images"]
    from segroi.tv.checkpoint import load_checkpoint

    trained = load_checkpoint(weights)["config"]
    if trained["val_data"]:
        return trained["val_data"], trained["val_images"] or trained["images"]
    return trained["data"], trained["images"]
