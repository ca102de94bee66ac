#!/usr/bin/env python
"""Branches that are told the box against the thesis's, on scenes whose objects share cells.

Two objects with the same encompassing box give the thesis's branches the same crop, and so get the
same mask. Here every seed trains one detector and, on its maps, two sets of branches that differ in
`condition_on_box` alone; no gradient of the masks reaches the trunk, so all learn side by side, and
boxes and scores are the same for both.

    python projects/SSD-ISB/crowded.py --output output/crowded
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segroi.layers.masks import paste_masks
from segroi.modeling.ssd.branches import InstanceBranches
from segroi.modeling.ssd.detector import SSDOutput
from segroi.modeling.ssd.ssd_isb import SSDISB
from segroi.ops import encompassing_boxes
from segroi.tv.data import CocoDataset, Draw
from segroi.tv.evaluate import detect_dataset
from segroi.tv.models import build_model
from segroi.utils.coco import coco_from, coco_metrics
from segroi.utils.digits import SceneSpec, make_digits
from segroi.utils.progress import Progress
from segroi.utils.project_results import record
from segroi.utils.visualisation import beside, draw_instances, save_picture

HERE = Path(__file__).parent
SIZE, STRIDE = 160, 32  # px of a scene, and of a cell of the coarsest map
SPEC = SceneSpec(size=(SIZE, SIZE), digits=(12, 16), side=(24.0, 44.0))
ROWS = {False: "Multi-Shape", True: "Multi-Shape, told the box"}
SHOWN = 2  # scenes in the picture

Sample = tuple[Tensor, dict[str, Tensor]]


@dataclass
class Objects:
    """What branches make of the true boxes of one scene."""

    masks: Tensor  # bool [G, H, W]
    iou: Tensor  # [G, G], of each mask (row) with each object
    rivals: Tensor  # bool [G, G], other objects with the same encompassing box


def main(argv: Sequence[str] | None = None) -> int:
    """Make the scenes, train, evaluate, draw, and record the table."""
    args = _arguments(argv)
    files = make_digits(args.output / "data", args.scenes, args.val_scenes, spec=SPEC)
    train = [one_class(sample) for sample in samples_of(files["train"], files["images"])]
    val_set = CocoDataset(files["val"], files["images"])
    val = [one_class(sample) for sample in samples_of(files["val"], files["images"])]
    rows: dict[str, list[list[float]]] = {name: [] for name in ROWS.values()}
    for seed in args.seeds:
        model, variants = train_side_by_side(train, args, seed)
        found = {}
        for told, branches in variants.items():
            model.branches = branches
            found[told] = [masks_of_true_boxes(model, sample) for sample in val]
            values = [*told_apart(found[told]), *average_precision(model, val_set)]
            rows[ROWS[told]].append(values)
            print(ROWS[told], seed, values, flush=True)
        if seed == args.seeds[0]:
            draw(args.output / "crowded.jpg", val, found)
    table = {name: _summary(values) for name, values in rows.items()}
    (args.output / "table.json").write_text(json.dumps(table, indent=1))
    if args.record:
        means, widths = ({name: pair[i] for name, pair in table.items()} for i in (0, 1))
        record(HERE / "results.json", "crowded", means, widths if args.seeds[1:] else None)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="scenes, picture, table.json")
    add("--scenes", type=int, default=400, metavar="N", help="to train on (%(default)s)")
    add("--val-scenes", type=int, default=150, metavar="N", help="to test on (%(default)s)")
    add("--seeds", type=int, nargs="+", default=[0], metavar="N")
    add("--iterations", type=int, default=500, metavar="N", help="%(default)s")
    add("--batch-size", type=int, default=8, metavar="N")
    add("--lr", type=float, default=2e-3, help="peak learning rate of AdamW (%(default)s)")
    add("--depth", type=float, default=0.25, help="depth multiplier of the trunk")
    add("--record", action="store_true", help="write means and spread into results.json")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def samples_of(annotations: Path, images: Path) -> list[Sample]:
    """All scenes, in memory."""
    dataset = CocoDataset(annotations, images)
    return [dataset[Draw(index)] for index in range(len(dataset))]


def one_class(sample: Sample) -> Sample:
    """Which digit it is does not matter here."""
    image, target = sample
    return image, {**target, "labels": torch.ones_like(target["labels"])}


def train_side_by_side(
    samples: Sequence[Sample], args: argparse.Namespace, seed: int
) -> tuple[SSDISB, dict[bool, InstanceBranches]]:
    """A model, and its branches without and with the box's coordinates."""
    torch.manual_seed(seed)
    options = {"size": SIZE, "depth_multiplier": args.depth, "norm_momentum": 0.03}
    model = build_model("ssd_isb", 1, **options)
    variants = {}
    for told in ROWS:
        torch.manual_seed(seed)
        branches = build_model("ssd_isb", 1, condition_on_box=told, **options).branches
        variants[told] = branches.train()
    modules = nn.ModuleList([model.detector, *variants.values()]).train()
    optimizer = torch.optim.AdamW(modules.parameters(), args.lr, weight_decay=0.05)
    warmup = max(args.iterations // 20, 1)
    batches = _batches(samples, args.batch_size, seed)
    with Progress(f"seed {seed}", args.iterations) as progress:
        for i in range(args.iterations):
            cosine = 0.5 * (1 + math.cos(math.pi * i / args.iterations))
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min(1.0, (i + 1) / warmup) * cosine
            losses = _losses(model, variants, next(batches))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            progress.advance({name: value.item() for name, value in losses.items()})
    model.eval()
    for branches in variants.values():
        branches.eval()
    return model, variants


def _losses(
    model: SSDISB, variants: dict[bool, InstanceBranches], batch: Sequence[Sample]
) -> dict[str, Tensor]:
    images, targets = zip(*batch)
    sizes = [tuple(image.shape[-2:]) for image in images]
    output = model.detector(model.preprocess(images))
    boxes = [target["boxes"] / SIZE for target in targets]
    losses = model.detector.losses(output, boxes, [target["labels"] for target in targets])
    for told, branches in variants.items():
        model.branches = branches
        losses[f"mask{' told' * told}"] = model.mask_loss(output, targets, sizes)
    return losses


def _batches(samples: Sequence[Sample], size: int, seed: int) -> Iterator[list[Sample]]:
    rng, queue = np.random.default_rng(seed), []
    while True:
        while len(queue) < size:
            queue += rng.permutation(len(samples)).tolist()
        yield [samples[i] for i in queue[:size]]
        queue = queue[size:]


@torch.no_grad()
def masks_of_true_boxes(model: SSDISB, sample: Sample) -> Objects:
    """Masks of the objects of a scene as if the detector were perfect."""
    image, target = sample
    boxes, truth = target["boxes"], target["masks"].bool()
    output: SSDOutput = model.detector(model.preprocess([image]))
    maps = [output.features[name] for name in ("conv13", "conv11", "conv5")]
    masks = torch.zeros_like(truth)
    for m in model.branches(maps, boxes, boxes.new_zeros(len(boxes)).long(), (SIZE, SIZE)):
        masks[m.index] = paste_masks(m.logits[:, 0], m.regions, (SIZE, SIZE))
    cells = encompassing_boxes(boxes, (SIZE, SIZE), (SIZE // STRIDE, SIZE // STRIDE))
    same = (cells[:, None] == cells).all(dim=-1)
    flat, real = masks.flatten(1).float(), truth.flatten(1).float()
    both = flat @ real.T
    iou = both / (flat.sum(1)[:, None] + real.sum(1) - both).clamp(min=1)
    return Objects(masks, iou, same & ~torch.eye(len(boxes), dtype=torch.bool))


def told_apart(scenes: Sequence[Objects]) -> list[float]:
    """Mean mask IoU of objects alone in their cells, of those that share them, and the percentage
    of the latter whose mask fits no object of the same cells better than their own.
    """
    own = torch.cat([s.iou.diagonal() for s in scenes])
    shared = torch.cat([s.rivals.any(dim=1) for s in scenes])
    rival = torch.cat([(s.iou * s.rivals).amax(dim=1) for s in scenes])
    right = (own > rival)[shared]
    values = own[~shared].mean(), own[shared].mean(), right.float().mean()
    return [round(100 * float(v), 2) for v in values]


def average_precision(model: SSDISB, dataset: CocoDataset) -> list[float]:
    """Mask and box AP50 of the detections, all digits one class."""
    content = copy.deepcopy(dataset.coco.dataset)
    content["categories"] = content["categories"][:1]
    for annotation in content["annotations"]:
        annotation["category_id"] = content["categories"][0]["id"]
    metrics = coco_metrics(coco_from(content), detect_dataset(model, dataset))
    return [round(100 * metrics[kind]["AP50"], 2) for kind in ("mask", "box")]


def draw(path: Path, samples: Sequence[Sample], found: dict[bool, list[Objects]]) -> None:
    """Objects that share their cells in the scenes with most of them: truth, and both masks."""
    count = [int(o.rivals.any(dim=1).sum()) for o in found[True]]
    best = sorted(range(len(samples)), key=lambda i: -count[i])[:SHOWN]
    lines = []
    for i in best:
        image, target = samples[i]
        rows = found[True][i].rivals.any(dim=1).nonzero()[:, 0]
        pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        columns = {"truth": target["masks"].bool()}
        columns |= {ROWS[told]: found[told][i].masks for told in ROWS}
        boxes = target["boxes"][rows].numpy()
        pictures = [
            draw_instances(pixels, boxes, [""] * len(rows), masks[rows].numpy())
            for masks in columns.values()
        ]
        lines.append(beside(pictures, list(columns)))
    save_picture(path, np.concatenate(lines))


def _summary(values: list[list[float]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation over the seeds."""
    columns = list(zip(*values))
    means = [round(statistics.mean(c), 2) for c in columns]
    return means, [round(statistics.stdev(c), 2) if len(c) > 1 else 0.0 for c in columns]


if __name__ == "__main__":
    raise SystemExit(main())
