"""Write a trained model for another runtime: ONNX, torch.export or TorchScript.

segroi export --weights runs/mine --to onnx --output model.onnx --check photograph.jpg

The file takes one image (float32 [3, H, W], RGB in 0..1, any size unless --image-size fixes it)
and gives boxes, labels, scores and masks, or the class of each pixel; segroi predict runs an ONNX
file.
"""

from __future__ import annotations

import argparse
import json

from segroi.utils.suggest import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="what segroi train wrote (or its folder)")
    add("--to", required=True, metavar="FORMAT", help="onnx, torch-export or torchscript")
    add("--output", required=True, metavar="FILE", help="file.onnx, file.pt2 or file.ts")
    add("--opset", type=int, default=18, metavar="N", help="of ONNX, 18 (%(default)s) to 23")
    add("--image-size", type=int, nargs=2, metavar=("H", "W"), help="the only size it will take")
    add("--size", type=int, metavar="PX", help="short side, if other than in training")
    add("--check", metavar="IMAGE", help="run the file on it, compare with the model, time both")
    add("--force", action="store_true", help="replace the file")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Export, check, tell; 1 where the file gives something else than the model."""
    from segroi.tv.checkpoint import load_model
    from segroi.tv.export import check_parity, export_model, load_exported
    from segroi.tv.export.formats import check_request
    from segroi.tv.run import weights_of

    size = tuple(args.image_size) if args.image_size else None
    check_request(args.output, args.to, size, args.opset, args.force)
    image = _image(args.check, size) if args.check else None
    overrides = {} if args.size is None else {"size": args.size}
    model, info = load_model(weights_of(args.weights), **overrides)
    kept = {name: info[name] for name in ("model", "categories", "provenance") if name in info}
    path = export_model(model, args.output, args.to, kept, size, args.opset, args.force)
    result = {"file": str(path), "bytes": path.stat().st_size, "format": args.to}
    if image is not None:
        parity = check_parity(model, load_exported(path), image)
        result["check"] = {"ok": parity.ok, **vars(parity)}
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0 if result.get("check", {"ok": True})["ok"] else 1


def _image(path: str, size: tuple[int, int] | None) -> object:
    import torch

    from segroi.utils.images import load_image

    image = torch.from_numpy(load_image(path)).permute(2, 0, 1).float() / 255
    if size and tuple(image.shape[1:]) != size:
        height, width = image.shape[1:]
        raise UsageError(f"{path} has {height} x {width} px, --image-size is {size[0]} {size[1]}")
    return image


def _print(result: dict) -> None:
    print(f"{result['format']:9s}{result['file']} ({result['bytes'] / 1e6:.1f} MB)")
    check = result.get("check")
    if not check:
        return
    print(f"objects  {check['counts'][0]} of the model, {check['counts'][1]} of the file")
    units = {"boxes": "boxes, px", "masks": "masks, 1 - IoU", "pixels": "share of pixels"}
    for name, value in check["differences"].items():
        print(f"  largest difference  {units.get(name, name):16s}{value:.3g}")
    times = check["milliseconds"]
    print(f"latency  {times[0]:.0f} ms of the model, {times[1]:.0f} ms of the file")
    print("the file agrees with the model" if check["ok"] else "the file DISAGREES with the model")
