#!/usr/bin/env python
"""Train and test the rows of the person-crop tables on any COCO-format data, without Detectron2.

    python projects/LowCostSemSeg/person_table.py --train-json train.json --val-json val.json \
        --images photographs --weights mobilenet_v1.pth --output output/person_table

Each cell is one training of a MobileNet with RMSProp. The values go to OUTPUT/table.json as they
come, with pictures beside it, and with --record into results.json. `--decoders base fcn8
--backgrounds 0 0.1 --rates 1` runs a part of the table, `--steps` says how long.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.functional import normalize
from torchvision.utils import draw_segmentation_masks, save_image

from segroi.modeling.backbones.mobilenet_v1 import load_imagenet
from segroi.modeling.semantic.iou import ClassIoU
from segroi.modeling.semantic.low_cost import (
    LowCostSegmenter,
    build_low_cost_segmenter,
    segmentation_loss,
)
from segroi.utils.person_crops import PersonCrops, coco_people, make_person_crops
from segroi.utils.project_results import record

DECODERS = {
    "base": {},
    "fcn16": {"steps": 1},
    "fcn8": {"steps": 2},
    "stride8": {"output_stride": 8},
}
NAMES = {
    "base": "bilinear only",
    "fcn16": "FCN16",
    "fcn8": "FCN8",
    "stride8": "output stride 8",
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def crops(args: argparse.Namespace, background: float) -> dict[str, PersonCrops]:
    """The crops of both splits; they are made once."""
    sets = {}
    for split, json_file in (("train", args.train_json), ("val", args.val_json)):
        folder = Path(args.output, f"crops_{background}", split)
        if not (folder / "crops.json").exists():
            people = coco_people(Path(json_file), Path(args.images))
            make_person_crops(people, folder, tuple(args.size), background)
        sets[split] = PersonCrops(folder, flip=split == "train")
    return sets


def train(model: LowCostSegmenter, data: PersonCrops, args: argparse.Namespace) -> None:
    """A number of RMSProp steps; the rate falls to zero along a cosine.

    PyTorch's RMSProp, because TensorFlow's spends the first hundred steps on its mean square.
    """
    generator = torch.Generator().manual_seed(args.seed)
    loader = DataLoader(data, args.batch, shuffle=True, drop_last=True, generator=generator)
    optimizer = torch.optim.RMSprop(model.parameters(), args.lr, alpha=0.9, eps=1e-10)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    model.train()
    step = 0
    while step < args.steps:
        for images, labels in loader:
            optimizer.zero_grad()
            loss = segmentation_loss(predict(model, images, args), labels.to(args.device))
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step == args.steps:
                return


@torch.no_grad()
def person_iou(model: LowCostSegmenter, data: PersonCrops, args: argparse.Namespace) -> float:
    """IoU of the person class over all crops, in percent."""
    model.eval()
    counts = ClassIoU(2)
    for images, labels in DataLoader(data, args.batch):
        counts.update(predict(model, images, args).argmax(1).cpu(), labels)
    return 100 * counts.compute()[1].item()


@torch.no_grad()
def draw(model: LowCostSegmenter, data: PersonCrops, args: argparse.Namespace, file: Path) -> None:
    """Write eight crops with the label (above) and the prediction (below)."""
    model.eval()
    picks = [data[i] for i in range(0, len(data), max(1, len(data) // 8))][:8]
    images = torch.stack([image for image, _ in picks])
    labels = torch.stack([label for _, label in picks]) == 1
    found = predict(model, images, args).argmax(1).cpu() == 1
    rows = []
    for masks in (labels, found):
        shown = [draw_segmentation_masks(i, m, 0.6, "orange") for i, m in zip(images, masks)]
        rows.append(torch.cat(shown, dim=2))
    file.parent.mkdir(exist_ok=True)
    save_image(torch.cat(rows, dim=1), file)


def predict(model: LowCostSegmenter, images: Tensor, args: argparse.Namespace) -> Tensor:
    """Logits of images in [0, 1]."""
    return model(normalize(images.to(args.device), MEAN, STD))


def run_cell(args: argparse.Namespace, decoder: str, background: float, rate: int) -> float:
    """Train one network and return its IoU."""
    torch.manual_seed(args.seed)
    model = build_low_cost_segmenter(
        num_classes=2,
        depth_multiplier=args.width,
        last_atrous_rate=rate,
        **DECODERS[decoder],
    )
    if args.weights:
        load_imagenet(model.backbone, torch.load(args.weights, weights_only=True))
    model.to(args.device)
    data = crops(args, background)
    train(model, data["train"], args)
    name = f"{decoder}_{round(100 * background)}_{rate}"
    draw(model, data["val"], args, Path(args.output, "pictures", f"{name}.png"))
    Path(args.output, "weights").mkdir(exist_ok=True)
    torch.save(model.state_dict(), Path(args.output, "weights", f"{name}.pth"))
    return person_iou(model, data["val"], args)


def main() -> None:
    """Run the chosen cells, one after the other."""
    args = _arguments()
    values: dict[str, list[float | None]] = {}
    Path(args.output).mkdir(parents=True, exist_ok=True)
    for background in args.backgrounds:
        for decoder in args.decoders:
            row = values.setdefault(
                f"{NAMES[decoder]}, background {round(100 * background)} %", [None] * 3
            )
            for rate in args.rates:
                start = time.perf_counter()
                row[(1, 3, 5).index(rate)] = round(run_cell(args, decoder, background, rate), 2)
                print(f"{decoder:8s} background {background:4} rate {rate}  {row}", end="  ")
                print(f"{time.perf_counter() - start:.0f} s", flush=True)
                settings = {k: v for k, v in vars(args).items() if k != "images"}
                text = json.dumps({"settings": settings, "person_iou": values}, indent=1)
                Path(args.output, "table.json").write_text(text)
    if args.record:
        record(Path(__file__).with_name("results.json"), "people", values)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-json", required=True, help="COCO format")
    parser.add_argument("--val-json", required=True, help="COCO format")
    parser.add_argument("--images", required=True, metavar="DIR")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--weights", default="", help="ImageNet weights of MobileNet-v1")
    parser.add_argument("--decoders", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--backgrounds", nargs="+", type=float, default=[0.0, 0.05, 0.1])
    parser.add_argument("--rates", nargs="+", type=int, choices=(1, 3, 5), default=[1, 3, 5])
    parser.add_argument("--size", nargs=2, type=int, default=[160, 96], metavar=("H", "W"))
    parser.add_argument("--width", type=float, default=1.0, help="MobileNet's depth multiplier")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--record", action="store_true", help="write into results.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
