"""The IoU distributions of SBR-CNN's Figs. 1 and 3, from a run and from a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.structures import BoxMode
from matplotlib.figure import Figure
from torch import Tensor

from segroi.modeling.recursion.statistics import missing_iou_fraction


def read_loop_histogram(metrics: str | Path) -> Tensor:
    """The last IoU histogram that a run of ``RecursiveROIHeads`` wrote.

    Args:
        metrics: its ``metrics.json``.

    Returns:
        ``Tensor[loops, 20]``, the part of each loop's samples in each bin of 0.05.

    Raises:
        ValueError: the run has no such histogram.
    """
    latest: dict[str, float] = {}
    for line in Path(metrics).read_text().splitlines():
        latest |= {key: value for key, value in json.loads(line).items() if "/iou/" in key}
    if not latest:
        raise ValueError(f"read_loop_histogram: no IoU histogram in {metrics}")
    loops = 1 + max(int(key.split("/")[0].removeprefix("loop")) for key in latest)
    keys = [[f"loop{loop}/iou/{index:02d}" for index in range(20)] for loop in range(loops)]
    return torch.tensor([[latest[key] for key in row] for row in keys])


def training_records(cfg: CfgNode) -> list[dict[str, Any]]:
    """All images of ``DATASETS.TRAIN``, in Detectron2's format."""
    return [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]


def missing_anchor_fraction(cfg: CfgNode, dataset: Sequence[dict[str, Any]]) -> Tensor:
    """Part of the objects that no anchor of the RPN overlaps by the IoU of a bin.

    Args:
        cfg: config of a model with a FPN; its largest training size counts.
        dataset: images in Detectron2's format.

    Returns:
        ``Tensor[20]`` in 0..1, a number for each bin of 0.05.
    """
    names = cfg.MODEL.RPN.IN_FEATURES
    strides = [2 ** int(name.removeprefix("p")) for name in names]
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=stride) for stride in strides])
    missing, objects = torch.zeros(20), 0
    for record in dataset:
        boxes = [
            BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)
            for a in record["annotations"]
            if not a.get("iscrowd", 0)
        ]
        if boxes:
            size, scale = _resized(cfg, record["height"], record["width"])
            maps = [torch.empty(1, 0, -(-size[0] // s), -(-size[1] // s)) for s in strides]
            anchors = torch.cat([level.tensor for level in generator(maps)])
            missing += len(boxes) * missing_iou_fraction(torch.tensor(boxes) * scale, anchors)
            objects += len(boxes)
    return missing / max(objects, 1)


def _resized(cfg: CfgNode, height: int, width: int) -> tuple[tuple[int, int], float]:
    """Size of the network's input and its ratio to the image's."""
    shortest, longest = max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN
    new = ResizeShortestEdge.get_output_shape(height, width, shortest, longest)
    return new, new[0] / height


def draw_histograms(histograms: Tensor, path: str | Path, labels: Sequence[str], what: str) -> None:
    """Draw one bar per row and IoU bin, the rows beside each other.

    Args:
        histograms: ``Tensor[rows, bins]`` of fractions.
        path: PNG or PDF to write.
        labels: one for each row.
        what: label of the vertical axis.
    """
    rows, bins = histograms.shape
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    width = 1 / bins / (rows + 0.5)
    left = torch.arange(bins) / bins
    for row, label in enumerate(labels):
        axes.bar(left + row * width, 100 * histograms[row], width, align="edge", label=label)
    axes.set(xlabel="IoU with the object", ylabel=what, xlim=(0, 1))
    if rows > 1:
        axes.legend()
    figure.savefig(path, dpi=150)
