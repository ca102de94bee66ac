"""Time multi_level_roi_align beside Detectron2's ROIPooler, torchvision and the reference (W1-W3).

An image of 800 x 1216 px, levels P2 to P5 of 256 channels, boxes as proposals are. W1: 512 RoIs of
7 x 7; W2: 128 RoIs of 14 x 14; W3: 512 RoIs of 7 x 7 from every level, summed (GRoIE).

    python scripts/benchmarks/bench_multi_level_roi_align.py [--threads 1 2] [--json FILE]
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import torch
from common import Rows, arguments, save, table
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from segroi.ops import multi_level_roi_align
from segroi.ops.reference import multi_level_roi_align as reference_module
from segroi.utils.testing import SCALES, random_pyramid, random_rois

IMAGE = (800, 1216)
WORKLOADS = {"W1": (512, 7, "select"), "W2": (128, 14, "select"), "W3": (512, 7, "sum")}
Pool = Callable[[Sequence[Tensor]], Tensor]


def poolers(workload: str, sampling: int, device: str) -> dict[str, Pool]:
    """The same pooling by everybody who offers it; the peer to compare with first."""
    count, size, reduce = WORKLOADS[workload]
    rois = random_rois(count, IMAGE).to(device)
    boxes = rois[:, 1:]

    def ours(maps: Sequence[Tensor]) -> Tensor:
        return multi_level_roi_align(maps, rois, size, SCALES, sampling, reduce=reduce)

    def reference(maps: Sequence[Tensor]) -> Tensor:
        return reference_module.multi_level_roi_align(
            maps, rois, (size, size), SCALES, sampling, reduce=reduce
        )

    def every_level(maps: Sequence[Tensor]) -> Tensor:
        return sum(roi_align(m, rois, size, s, sampling, True) for m, s in zip(maps, SCALES))

    if reduce == "sum":
        return {"torchvision, level by level": every_level, "segroi": ours, "reference": reference}
    found: dict[str, Pool] = {}
    if importlib.util.find_spec("detectron2"):
        from detectron2.modeling.poolers import ROIPooler
        from detectron2.structures import Boxes

        pooler = ROIPooler((size, size), SCALES, sampling, "ROIAlignV2")
        found["Detectron2 ROIPooler"] = lambda maps: pooler(list(maps), [Boxes(boxes)])
    return {**found, "segroi": ours, "reference": reference}


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
            found[label] = _backward(pool, maps) if backward else _forward(pool, maps)
    return found


def _forward(pool: Pool, maps: list[Tensor]) -> Callable[[], Tensor]:
    return lambda: pool(maps)


def _backward(pool: Pool, maps: list[Tensor]) -> Callable[[], Tensor]:
    """Gradients of the maps; the finest one is what is compared."""
    leaves = [m.detach().requires_grad_() for m in maps]
    out = pool(leaves)
    g = torch.Generator().manual_seed(1)
    seed = torch.randn(out.shape, generator=g).to(out.device)
    if out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous():
        seed = seed.contiguous(memory_format=torch.channels_last)
    return lambda: torch.autograd.grad(out, leaves, seed, retain_graph=True)[0]


def main() -> None:
    """Every workload, sampling, direction and thread count."""
    parser = arguments(__doc__, repeat=5)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    args = parser.parse_args()
    formats = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
    pyramids = {
        name: [m.to(args.device) for m in random_pyramid(IMAGE, memory_format=form)]
        for name, form in formats.items()
    }
    tables = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for workload in args.workloads:
            for sampling in (0, 2):
                pools = poolers(workload, sampling, args.device)
                for direction in ("forward", "backward"):
                    facts = {
                        "workload": workload,
                        "sampling": sampling,
                        "direction": direction,
                        "threads": threads,
                    }
                    word = f"sampling {sampling or 'adaptive'}"
                    title = f"{workload} {word}, {direction}, {threads} threads"
                    found = rows(pools, pyramids, direction == "backward")
                    repeat = max(1, args.repeat // (4 if workload == "W3" else 1))
                    tables.append(table(title, found, repeat, **facts))
        title = f"W1 unaligned sampling 2, forward, {threads} threads"
        tables.append(table(title, unaligned_rows(pyramids["NCHW"], 2), args.repeat))
    save(args.json, tables)


if __name__ == "__main__":
    main()
