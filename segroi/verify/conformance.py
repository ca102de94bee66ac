"""Compare the operators with their peers on thousands of seeded random cases.

A case is one box of random size, place and orientation on a random map with random options. The
peers: torchvision's roi_align (values and gradients), Detectron2's ROIPooler, TensorFlow's
crop_and_resize (its formula, written again here in NumPy) and ONNX RoiAlign in onnxruntime.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

from segroi import ops

BOXES_PER_CALL = 50
_TOLERANCE = 2e-4  # of maps ~ N(0, 1): coordinates of a few hundred cells round to 3e-5


@dataclass(frozen=True)
class Setting:
    """Everything random about a call, except its tensors."""

    rng: np.random.Generator

    def integer(self, low: int, high: int) -> int:
        """Uniform in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, *values: object) -> object:
        """One of the values."""
        return values[self.rng.integers(len(values))]

    def maps(self, n: int, c: int, h: int, w: int) -> Tensor:
        """Normally distributed maps."""
        return torch.from_numpy(self.rng.standard_normal((n, c, h, w), dtype=np.float32))

    def rois(self, k: int, n: int, h: float, w: float) -> Tensor:
        """Boxes (image, x0, y0, x1, y1): log-uniform extents, a third partly outside h x w."""
        centre = self.rng.uniform(-0.1, 1.1, (k, 2)) * (w, h)
        extent = np.exp(self.rng.uniform(np.log(0.05), np.log(1.2), (k, 2))) * (w, h)
        index = self.rng.integers(0, n, (k, 1))
        rois = np.concatenate([index, centre - extent / 2, centre + extent / 2], 1)
        return torch.from_numpy(rois.astype(np.float32))


Errors = Iterator[tuple[Tensor, Tensor]]  # ours, theirs


def torchvision_roi_align(s: Setting, k: int) -> Errors:
    """Values and feature gradients of one level."""
    n, h, w = s.integer(1, 3), s.integer(1, 40), s.integer(1, 40)
    maps, scale = s.maps(n, s.integer(1, 5), h, w), float(s.choice(1.0, 0.25, 1 / 16, 0.37))
    rois = s.rois(k, n, h / scale, w / scale)
    size, ratio = (s.integer(1, 9), s.integer(1, 9)), s.integer(0, 4)
    aligned = bool(s.integer(0, 1))
    mine, theirs = maps.requires_grad_(), maps.detach().clone().requires_grad_()
    ours = ops.multi_level_roi_align([mine], rois, size, [scale], ratio, aligned)
    want = torchvision.ops.roi_align(theirs, rois, size, scale, ratio, aligned)
    yield ours, want
    seed = torch.from_numpy(s.rng.standard_normal(want.shape, dtype=np.float32))
    ours.backward(seed)
    want.backward(seed)
    yield mine.grad / k**0.5, theirs.grad / k**0.5


def torchvision_crop(s: Setting, k: int) -> Errors:
    """Aligned crops: RoIAlign whose sampling ratio is the pooling."""
    n, h, w = s.integer(1, 3), s.integer(1, 40), s.integer(1, 40)
    maps, rois = s.maps(n, s.integer(1, 5), h, w), s.rois(k, n, h, w)
    pool, size = s.integer(1, 4), (s.integer(1, 9), s.integer(1, 9))
    want = torchvision.ops.roi_align(maps, rois, size, 1.0, pool, True)
    crop = [pool * side for side in size]
    index = rois[:, 0].long()
    yield (
        ops.crop_and_resize(
            maps, rois[:, 1:].contiguous(), index, crop, coordinates="aligned", pool=pool
        ),
        want,
    )


def detectron2_pooler(s: Setting, k: int) -> Errors:
    """Levels by size; on integer boxes, where every way to write the level rule agrees."""
    poolers = importlib.import_module("detectron2.modeling.poolers")
    structures = importlib.import_module("detectron2.structures")
    n, h, w, c = s.integer(1, 3), 32 * s.integer(1, 6), 32 * s.integer(1, 6), s.integer(1, 5)
    levels = s.integer(1, 4)
    scales = [1 / (4 << i) for i in range(levels)]
    maps = [s.maps(n, c, h // (4 << i), w // (4 << i)) for i in range(levels)]
    rois = s.rois(k, n, 4 * h, 4 * w).round()  # up to a thousand px, so that all levels occur
    rois = rois[rois[:, 0].argsort(stable=True)]
    side, ratio = s.integer(1, 9), s.integer(0, 3)
    kind = str(s.choice("ROIAlign", "ROIAlignV2"))
    pooler = poolers.ROIPooler(side, scales, ratio, kind)
    lists = [structures.Boxes(rois[rois[:, 0] == i, 1:]) for i in range(n)]
    aligned = kind == "ROIAlignV2"
    yield (
        ops.multi_level_roi_align(maps, rois, side, scales, ratio, aligned),
        pooler(maps, lists),
    )


def tensorflow_crop(s: Setting, k: int) -> Errors:
    """TensorFlow's crop_and_resize, bilinear and nearest, boxes of any orientation."""
    n, h, w = s.integer(1, 3), s.integer(1, 40), s.integer(1, 40)
    maps, index = s.maps(n, s.integer(1, 5), h, w), torch.from_numpy(s.rng.integers(0, n, k))
    boxes = torch.from_numpy(s.rng.uniform(-0.2, 1.2, (k, 4)).astype(np.float32))
    size, method = (s.integer(1, 12), s.integer(1, 12)), str(s.choice("bilinear", "nearest"))
    value = float(s.rng.standard_normal())
    want = tensorflow_formula(maps.numpy(), boxes.numpy(), index.numpy(), size, method, value)
    yield ops.crop_and_resize(maps, boxes, index, size, method, value), torch.from_numpy(want)


def tensorflow_formula(
    maps: np.ndarray,
    boxes: np.ndarray,
    index: np.ndarray,
    size: tuple[int, int],
    method: str,
    value: float,
) -> np.ndarray:
    """crop_and_resize as TensorFlow documents it, in float32 like its CPU kernel."""
    axes = []
    for first, last, count, cells in zip(
        boxes[:, :2].T, boxes[:, 2:].T, size, maps.shape[2:], strict=True
    ):
        if count > 1:
            step = (last - first) * np.float32(cells - 1) / np.float32(count - 1)
            grid = np.arange(count, dtype=np.float32)
            where = (first * np.float32(cells - 1))[:, None] + grid * step[:, None]
        else:
            where = (np.float32(0.5) * (first + last) * np.float32(cells - 1))[:, None]
        outside = (where < 0) | (where > cells - 1)
        axes.append((np.where(outside, 0, where), outside))
    (rows, above), (cols, beside) = axes
    image = index[:, None, None]

    def at(y: np.ndarray, x: np.ndarray) -> np.ndarray:  # [K, h, w, C]
        return maps[image, :, y.astype(int)[:, :, None], x.astype(int)[:, None, :]]

    if method == "nearest":
        crops = at(np.floor(rows + 0.5), np.floor(cols + 0.5))
    else:
        left, right, fx = np.floor(cols), np.ceil(cols), (cols - np.floor(cols))[:, None, :, None]
        top, low, fy = np.floor(rows), np.ceil(rows), (rows - np.floor(rows))[:, :, None, None]
        upper = at(top, left) + (at(top, right) - at(top, left)) * fx
        lower = at(low, left) + (at(low, right) - at(low, left)) * fx
        crops = upper + (lower - upper) * fy
    crops = np.where((above[:, :, None] | beside[:, None, :])[..., None], np.float32(value), crops)
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))


def onnx_roi_align(s: Setting, k: int) -> Errors:
    """ONNX RoiAlign (opset 16), average mode, both coordinate transformations."""
    n, h, w = s.integer(1, 3), s.integer(1, 40), s.integer(1, 40)
    maps, scale = s.maps(n, s.integer(1, 5), h, w), float(s.choice(1.0, 0.25, 1 / 16))
    rois = s.rois(k, n, h / scale, w / scale)
    size, ratio = (s.integer(1, 9), s.integer(1, 9)), s.integer(0, 3)
    aligned = bool(s.integer(0, 1))
    session = _onnx_session(size, scale, ratio, aligned)
    index = rois[:, 0].numpy().astype(np.int64)
    feeds = {"maps": maps.numpy(), "boxes": rois[:, 1:].numpy(), "index": index}
    want = torch.from_numpy(session.run(None, feeds)[0])
    yield ops.multi_level_roi_align([maps], rois, size, [scale], ratio, aligned), want


def _onnx_session(size: tuple[int, int], scale: float, ratio: int, aligned: bool) -> object:
    onnx = importlib.import_module("onnx")
    runtime = importlib.import_module("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "RoiAlign",
        ["maps", "boxes", "index"],
        ["crops"],
        output_height=size[0],
        output_width=size[1],
        sampling_ratio=ratio,
        spatial_scale=scale,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
    inputs = [("maps", kind.FLOAT, 4), ("boxes", kind.FLOAT, 2), ("index", kind.INT64, 1)]
    infos = [helper.make_tensor_value_info(a, t, [None] * rank) for a, t, rank in inputs]
    output = helper.make_tensor_value_info("crops", kind.FLOAT, [None] * 4)
    graph = helper.make_graph([node], "crop", infos, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


PEERS: dict[str, tuple[Callable[[Setting, int], Errors], tuple[str, ...]]] = {
    "torchvision roi_align": (torchvision_roi_align, ()),
    "torchvision roi_align, aligned crops": (torchvision_crop, ()),
    "Detectron2 ROIPooler": (detectron2_pooler, ("detectron2",)),
    "TensorFlow crop_and_resize formula": (tensorflow_crop, ()),
    "ONNX RoiAlign in onnxruntime": (onnx_roi_align, ("onnx", "onnxruntime")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--cases", type=int, default=10_000, help="boxes per peer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", choices=tuple(PEERS), help="this peer alone")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare with every peer and print a table; 1 when one differs."""
    rows: dict[str, dict[str, object]] = {}
    for name, (compare, modules) in PEERS.items():
        if args.peer not in (None, name):
            continue
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        if missing:
            rows[name] = {"missing": missing}
            continue
        worst, bad = compare_with(name, compare, args.cases, args.seed)
        rows[name] = {"cases": args.cases, "max_error": worst, "different": bad}
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print("\n".join(map(_line, rows, rows.values())))
    return int(any(row.get("different") for row in rows.values()))


def _line(name: str, row: dict[str, Any]) -> str:
    if "missing" in row:
        return f"{name:40} not compared: {', '.join(row['missing'])} is not installed"
    cases = f"{row['cases']:6} cases  max error {row['max_error']:8.2e}"
    return f"{name:40} {cases}  {row['different']} different"


def compare_with(
    name: str, compare: Callable[[Setting, int], Errors], cases: int, seed: int
) -> tuple[float, int]:
    """Largest error over all cases, and how many calls exceed the tolerance."""
    worst, bad = 0.0, 0
    calls = range(0, cases, BOXES_PER_CALL)
    for start in tqdm(calls, desc=name, leave=False, disable=not sys.stderr.isatty()):
        setting = Setting(np.random.default_rng([seed, start]))
        for ours, theirs in compare(setting, min(BOXES_PER_CALL, cases - start)):
            same_shape = ours.shape == theirs.shape and ours.dtype == theirs.dtype
            error = (
                float((ours - theirs).detach().abs().max()) if same_shape and ours.numel() else 0.0
            )
            bad += not (same_shape and error <= _TOLERANCE)
            worst = max(worst, error)
    return worst, bad
