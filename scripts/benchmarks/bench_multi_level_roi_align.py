"""Time multi_level_roi_align beside Detectron2's ROIPooler, torchvision and the reference (W1-W3).

Images of 800 x 1216 px, levels P2 to P5 of 256 channels, boxes as proposals are. W1: 512 RoIs of
7 x 7; W2: 128 RoIs of 14 x 14; W3: 512 RoIs of 7 x 7 from every level, summed (GRoIE). On a GPU
also A: 1000 RoIs of 7 x 7 on one image, B: 512 on each of eight; and half precision.

    python scripts/benchmarks/bench_multi_level_roi_align.py [--threads 1 2] [--json FILE]
    python scripts/benchmarks/bench_multi_level_roi_align.py --device cuda [--dtypes float32 ...]
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from common import Rows, arguments, save, table
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from segroi.ops import multi_level_roi_align
from segroi.ops.reference import multi_level_roi_align as reference_module
from segroi.utils.testing import SCALES, random_pyramid, random_rois

IMAGE = (800, 1216)
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
Pool = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Workload:
    """``rois`` boxes an image, crops of ``size`` x ``size``, levels selected or summed."""

    rois: int
    size: int
    reduce: str = "select"
    images: int = 1

    def boxes(self, device: str) -> Tensor:
        """RoIs ``Tensor[rois * images, 5]``, image by image as Detectron2 lists them."""
        rois = random_rois(self.rois * self.images, IMAGE, self.images)
        return rois[rois[:, 0].argsort(stable=True)].to(device)


WORKLOADS = {
    "W1": Workload(512, 7),
    "W2": Workload(128, 14),
    "W3": Workload(512, 7, "sum"),
    "A": Workload(1000, 7),
    "B": Workload(512, 7, images=8),
}
DEFAULT = {"cpu": ["W1", "W2", "W3"], "cuda": list(WORKLOADS)}


def poolers(work: Workload, sampling: int, device: str) -> dict[str, Pool]:
    """The same pooling by everybody who offers it; the peer to compare with first.

    The reference is left out on a GPU, where one call takes as long as everything else.
    """
    rois = work.boxes(device)
    size, reduce = work.size, work.reduce

    def ours(maps: Sequence[Tensor]) -> Tensor:
        return multi_level_roi_align(maps, rois, size, SCALES, sampling, reduce=reduce)

    def reference(maps: Sequence[Tensor]) -> Tensor:
        return reference_module.multi_level_roi_align(
            maps, rois, (size, size), SCALES, sampling, reduce=reduce
        )

    def every_level(maps: Sequence[Tensor]) -> Tensor:
        boxes = rois.to(maps[0].dtype)
        return sum(roi_align(m, boxes, size, s, sampling, True) for m, s in zip(maps, SCALES))

    last = {} if device == "cuda" else {"reference": reference}
    if reduce == "sum":
        return {"torchvision, level by level": every_level, "segroi": ours, **last}
    return {**detectron2_pooler(work, rois, sampling), "segroi": ours, **last}


def detectron2_pooler(work: Workload, rois: Tensor, sampling: int) -> dict[str, Pool]:
    """Detectron2's own pooler, where it is installed."""
    if not importlib.util.find_spec("detectron2"):
        return {}
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.structures import Boxes

    pooler = ROIPooler((work.size, work.size), SCALES, sampling, "ROIAlignV2")
    boxes = [Boxes(rois[rois[:, 0] == n, 1:]) for n in range(work.images)]
    return {"Detectron2 ROIPooler": lambda maps: pooler(list(maps), boxes)}


def in_float32(pool: Pool) -> Pool:
    """``pool`` on float32 copies: what users do where an operator has no bfloat16."""
    return lambda maps: pool([m.float() for m in maps]).to(maps[0].dtype)


def unaligned_rows(maps: list[Tensor], sampling: int) -> Rows:
    """W1 as torchvision's own pooler does it, which knows no half-pixel shift."""
    rois = random_rois(512, IMAGE).round().to(maps[0].device)
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, max(sampling, 1))
    named = {str(level): m for level, m in enumerate(maps)}
    ours = (maps, rois, 7, SCALES, max(sampling, 1), False)
    return {
        "torchvision MultiScaleRoIAlign": lambda: pooler(named, [rois[:, 1:]], [IMAGE]),
        "segroi": lambda: multi_level_roi_align(*ours),
    }


def rows(pools: dict[str, Pool], pyramids: dict[str, list[Tensor]], backward: bool) -> Rows:
    """Calls without gradient, or backward passes; segroi in both layouts, the reference forward."""
    found: Rows = {}
    for name, pool in pools.items():
        if backward and name == "reference":
            continue
        for layout, maps in pyramids.items():
            if layout != "NCHW" and name != "segroi":
                continue
            label = f"{name}, {layout}" if name == "segroi" else name
            if name != "segroi" and maps[0].dtype == torch.bfloat16:
                pool, label = in_float32(pool), f"{name}, float32 copies"
            found[label] = _backward(pool, maps) if backward else _forward(pool, maps)
    return found


def _forward(pool: Pool, maps: list[Tensor]) -> Callable[[], Tensor]:
    return lambda: pool(maps)


def _backward(pool: Pool, maps: list[Tensor]) -> Callable[[], Tensor]:
    """Gradients of the maps; the finest one is what is compared."""
    leaves = [m.detach().requires_grad_() for m in maps]
    out = pool(leaves)
    g = torch.Generator().manual_seed(1)
    seed = torch.randn(out.shape, generator=g).to(out)
    if out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous():
        seed = seed.contiguous(memory_format=torch.channels_last)
    return lambda: torch.autograd.grad(out, leaves, seed, retain_graph=True)[0]


def tables_of(
    name: str, pyramids: dict[str, list[Tensor]], repeat: int, **facts: object
) -> list[dict[str, object]]:
    """Both samplings and directions of one workload."""
    device, dtype = pyramids["NCHW"][0].device.type, pyramids["NCHW"][0].dtype
    exact = {"NCHW": [m.float() for m in pyramids["NCHW"]]}
    found = []
    for sampling in (0, 2):
        pools = poolers(WORKLOADS[name], sampling, device)
        peer = next(iter(pools))
        for direction in ("forward", "backward"):
            title = f"{name} sampling {sampling or 'adaptive'}, {direction}, " + ", ".join(
                f"{value} {key}" if key == "threads" else str(value) for key, value in facts.items()
            )
            found.append(
                table(
                    title,
                    rows(pools, pyramids, direction == "backward"),
                    max(1, repeat // (4 if name == "W3" and device == "cpu" else 1)),
                    TOLERANCE[dtype],
                    next(iter(rows({peer: pools[peer]}, exact, direction == "backward").values())),
                    # the peers compute coordinates in half precision too, and miss by pixels
                    [peer] if dtype == torch.float16 else [],
                    workload=name,
                    sampling=sampling,
                    direction=direction,
                    **facts,
                )
            )
    return found


@cache
def float32_pyramid(images: int) -> list[Tensor]:
    """The maps of all workloads of so many images, on the CPU."""
    return random_pyramid(IMAGE, images=images)


def pyramids_of(images: int, device: str, dtype: torch.dtype) -> dict[str, list[Tensor]]:
    """The same maps in both layouts."""
    maps = [m.to(device, dtype) for m in float32_pyramid(images)]
    return {
        name: [m.contiguous(memory_format=form) for m in maps] for name, form in FORMATS.items()
    }


def main() -> None:
    """Every workload, sampling and direction; thread count on a CPU, precision on a GPU."""
    parser = arguments(__doc__, repeat=5)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "bfloat16"])
    args = parser.parse_args()
    names = args.workloads or DEFAULT[args.device]
    tables = []
    if args.device == "cpu":
        pyramids = pyramids_of(1, "cpu", torch.float32)
        for threads in args.threads:
            torch.set_num_threads(threads)
            for name in names:
                tables += tables_of(name, pyramids, args.repeat, threads=threads)
            title = f"W1 unaligned sampling 2, forward, {threads} threads"
            tables.append(table(title, unaligned_rows(pyramids["NCHW"], 2), args.repeat))
    else:
        for name in names:
            for dtype in args.dtypes:
                images = WORKLOADS[name].images
                pyramids = pyramids_of(images, args.device, getattr(torch, dtype))
                tables += tables_of(name, pyramids, args.repeat, dtype=dtype)
    save(args.json, tables)


if __name__ == "__main__":
    main()
