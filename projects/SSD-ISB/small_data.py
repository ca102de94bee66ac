#!/usr/bin/env python
"""Multi-Shape against Single-Branch on a few photographs, at 320 px on a CPU.

No gradient of the masks reaches the trunk, so the families can share a detector. For each seed it
is trained first, on stored maps of the part of the trunk that keeps its ImageNet weights; then the
branches of each family, on the maps of the trained detector. The models of a seed differ in nothing
but their branches: boxes and scores are the same, and so are the recipe and the batches.

    python projects/SSD-ISB/small_data.py --data person_train.json --val-data person_val.json \
        --images DIR --weights mobilenet_v1.pth --output output/small
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segroi.modeling.ssd.branches import InstanceBranches
from segroi.modeling.ssd.detector import SSDOutput
from segroi.modeling.ssd.ssd_isb import SSDISB
from segroi.tv.data import CocoDataset, Draw
from segroi.tv.evaluate import detect_dataset
from segroi.tv.models import build_model
from segroi.tv.predict import predict_files
from segroi.tv.ssd_isb import load_mobilenet_v1
from segroi.utils.coco import METRICS_AT_HALF, coco_scores
from segroi.utils.progress import Progress
from segroi.utils.project_results import record

HERE = Path(__file__).parent
FAMILIES = {"single_branch": "Single-Branch", "multi_shape": "Multi-Shape"}
FROZEN = 12  # blocks of the trunk that keep their weights: up to conv11


@dataclass
class Sample:
    """A picture as the trained layers see it."""

    maps: dict[str, Tensor]  # conv5 and conv11
    target: dict[str, Tensor]
    size: tuple[int, int]  # of the picture, px


def main(argv: Sequence[str] | None = None) -> int:
    """Train, evaluate, and print or record the table."""
    args = _arguments(argv)
    rows: dict[str, list[list[float]]] = {name: [] for name in FAMILIES}
    samples: list[Sample] = []
    for seed in args.seeds:
        torch.manual_seed(seed)
        model = _model(args)
        samples = samples or _samples(model, CocoDataset(args.data, args.images))
        _train_detector(model, samples, args, seed)
        _keep_maps(model, samples)
        for family, results in rows.items():
            torch.manual_seed(seed)
            model.branches = _model(args, family).branches
            _train_branches(model, samples, args, seed)
            results.append(_evaluate(model, args, args.output / f"{family}-{seed}"))
            print(family, seed, dict(zip((*METRICS_AT_HALF, "box AP50"), results[-1])), flush=True)
    table = _table(rows, args.seeds)
    (args.output / "table.json").write_text(json.dumps(table, indent=1))
    if args.record:
        record(HERE / "results.json", "small", table)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, metavar="JSON", help="COCO-format annotations to train on")
    add("--val-data", required=True, metavar="JSON", help="annotations to evaluate on")
    add("--images", required=True, metavar="DIR", help="their images")
    add("--weights", metavar="FILE", help="ImageNet weights of MobileNet-v1")
    add("--output", type=Path, required=True, metavar="DIR", help="pictures and table.json")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    add("--iterations", type=int, default=300, metavar="N", help="of the detector (%(default)s)")
    add("--branch-iterations", type=int, default=300, metavar="N", help="of each family's branches")
    add("--batch-size", type=int, default=8, metavar="N")
    add("--lr", type=float, default=1e-3, help="peak learning rate of AdamW (%(default)s)")
    add("--size", type=int, default=320, metavar="PX")
    add("--depth", type=float, default=1.0, help="depth multiplier of the trunk")
    add("--record", action="store_true", help="write the means into results.json")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def _model(args: argparse.Namespace, family: str = "single_branch") -> SSDISB:
    model = build_model(
        "ssd_isb",
        1,
        family=family,
        size=args.size,
        depth_multiplier=args.depth,
        norm="frozen",
        norm_momentum=0.03,
        frozen_stages=3,
    )
    if args.weights:
        load_mobilenet_v1(model.backbone, args.weights)
    return model.train()


@torch.no_grad()
def _samples(model: SSDISB, dataset: CocoDataset) -> list[Sample]:
    """Every picture and its mirror image."""
    samples = []
    for index in range(len(dataset)):
        for flip in (False, True):
            image, target = dataset[Draw(index, flip)]
            maps = model.backbone(model.preprocess([image]))
            kept = {name: maps[name][0] for name in ("conv5", "conv11")}
            samples.append(Sample(kept, target, tuple(image.shape[-2:])))
    return samples


def _output(model: SSDISB, batch: Sequence[Sample]) -> SSDOutput:
    """What the detector says of stored maps."""
    names = batch[0].maps
    maps = {name: torch.stack([sample.maps[name] for sample in batch]) for name in names}
    if "conv13" not in maps:
        maps["conv13"] = model.backbone.model[FROZEN:][1](
            model.backbone.model[FROZEN](maps["conv11"])
        )
    return model.detector.predict(maps)


def _train_detector(
    model: SSDISB, samples: list[Sample], args: argparse.Namespace, seed: int
) -> None:
    for sample in samples:
        sample.maps.pop("conv13", None)

    def loss(batch: Sequence[Sample]) -> Tensor:
        output = _output(model, batch)
        boxes = [s.target["boxes"] / torch.tensor([*s.size[::-1]] * 2) for s in batch]
        losses = model.detector.losses(output, boxes, [s.target["labels"] for s in batch])
        return losses["loss_box"] + losses["loss_cls"]

    trained = [p for p in model.detector.parameters() if p.requires_grad]
    _minimise(f"detector {seed}", loss, trained, samples, args.iterations, args, seed)


@torch.no_grad()
def _keep_maps(model: SSDISB, samples: list[Sample]) -> None:
    """Store the last map of the trained trunk."""
    model.eval()
    for sample in samples:
        sample.maps["conv13"] = _output(model, [sample]).features["conv13"][0]


def _train_branches(
    model: SSDISB, samples: list[Sample], args: argparse.Namespace, seed: int
) -> None:
    branches: InstanceBranches = model.branches.train()

    def loss(batch: Sequence[Sample]) -> Tensor:
        with torch.no_grad():
            output = _output(model.eval(), batch)
        branches.train()
        return model.mask_loss(output, [s.target for s in batch], [s.size for s in batch])

    title = f"{len(branches.branches)} branches {seed}"
    weights = list(branches.parameters())
    _minimise(title, loss, weights, samples, args.branch_iterations, args, seed)


def _minimise(
    title: str,
    loss: Callable[[Sequence[Sample]], Tensor],
    weights: Sequence[Tensor],
    samples: Sequence[Sample],
    iterations: int,
    args: argparse.Namespace,
    seed: int,
) -> None:
    """AdamW with a short warm-up and a cosine."""
    optimizer = torch.optim.AdamW(weights, args.lr, weight_decay=0.05)
    warmup = max(iterations // 20, 1)
    batches = _batches(samples, args.batch_size, seed)
    with Progress(title, iterations) as progress:
        for i in range(iterations):
            cosine = 0.5 * (1 + math.cos(math.pi * i / iterations))
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min(1.0, (i + 1) / warmup) * cosine
            value = loss(next(batches))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            progress.advance({"loss": value.item()})


def _batches(samples: Sequence[Sample], size: int, seed: int) -> Iterator[list[Sample]]:
    rng, queue = np.random.default_rng(seed), []
    while True:
        while len(queue) < size:
            queue += rng.permutation(len(samples)).tolist()
        yield [samples[i] for i in queue[:size]]
        queue = queue[size:]


def _evaluate(model: SSDISB, args: argparse.Namespace, output: Path) -> list[float]:
    """Percent by the columns of the thesis, and the boxes' AP at IoU 0.5."""
    dataset = CocoDataset(args.val_data, args.images)
    results = detect_dataset(model, dataset)
    scores = coco_scores(dataset.coco, results)
    files = [dataset.folder / dataset.coco.imgs[i]["file_name"] for i in dataset.image_ids[:8]]
    predict_files(model, dataset.categories, files, output, 0.3)
    (output / "detections.json").write_text(json.dumps(results))
    half = scores["mask"].half
    values = [*(half[name] for name in METRICS_AT_HALF), scores["box"].half["AP50"]]
    return [round(100 * value, 2) for value in values]


def _table(rows: dict[str, list[list[float]]], seeds: Sequence[int]) -> dict[str, list[float]]:
    """Rows by name: each seed, and the mean."""
    table = {}
    for family, results in rows.items():
        name = FAMILIES[family]
        table[f"{name}, mean"] = [round(statistics.mean(v), 2) for v in zip(*results)]
        table |= {f"{name}, seed {seed}": values for seed, values in zip(seeds, results)}
    return table


if __name__ == "__main__":
    raise SystemExit(main())
