"""Time encompass_crop (W5): boxes of whole cells into zero-padded stacks, forward and backward.

Rows run interleaved in one process and are checked to be bit-exact before anything is timed. The
copy moves as many bytes as the stack has, between warm buffers.

    python scripts/benchmarks/bench_encompass_crop.py [--threads 1 2] [--boxes 100] [--json FILE]
"""

from __future__ import annotations

import torch
import torchvision
from common import Rows, arguments, save, table
from torch import Tensor
from torch.nn import functional as F

from segroi.ops import encompass_crop

GRID, SHAPE = 20, (14, 14)
WORKLOADS = ((1, 1024), (2, 512))  # factor and channels of conv13 and conv11 at 640 px
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def random_cells(k: int) -> Tensor:
    """Boxes of 2 to 14 cells a side, anywhere on the grid."""
    g = torch.Generator().manual_seed(0)
    sides = torch.randint(2, SHAPE[0] + 1, (k, 2), generator=g)
    corner = (torch.rand(k, 2, generator=g) * (GRID - sides + 1)).long()
    return torch.cat([corner, corner + sides], 1)


def random_maps(factor: int, channels: int, form: torch.memory_format, device: str) -> Tensor:
    """One image's map of that layout."""
    maps = torch.randn(1, channels, GRID * factor, GRID * factor, device=device)
    return maps.contiguous(memory_format=form)


def slices_and_padding(maps: Tensor, cells: list[list[int]], factor: int) -> Tensor:
    """What plain PyTorch offers: a slice of the map into zeros, box by box."""
    size = [side * factor for side in SHAPE]
    form = torch.channels_last if not maps.is_contiguous() else torch.contiguous_format
    shape = (len(cells), maps.shape[1], *size)
    out = torch.empty(shape, device=maps.device, memory_format=form).zero_()
    for k, box in enumerate(cells):
        x0, y0, x1, y1 = (v * factor for v in box)
        out[k, :, : y1 - y0, : x1 - x0] = maps[0, :, y0:y1, x0:x1]
    return out


def pads_and_stack(maps: Tensor, cells: list[list[int]], factor: int) -> Tensor:
    """The same without writing in place, which autograd follows at a bearable cost."""
    crops = []
    for x0, y0, x1, y1 in ([v * factor for v in box] for box in cells):
        padding = (0, SHAPE[1] * factor - (x1 - x0), 0, SHAPE[0] * factor - (y1 - y0))
        crops.append(F.pad(maps[0, :, y0:y1, x0:x1], padding))
    return torch.stack(crops)


def exact_roi_align(maps: Tensor, cells: Tensor, factor: int) -> Tensor:
    """torchvision's roi_align on boxes of the stack's size, whose samples fall on the pixels."""
    size = [side * factor for side in SHAPE]
    corner = (cells[:, :2] * factor).float()
    image, whole = corner.new_zeros(len(cells), 1), corner.new_tensor(size[::-1])
    boxes = torch.cat([image, corner, corner + whole], 1)
    crops = torchvision.ops.roi_align(maps, boxes, size, 1.0, 1, True)
    inside = [torch.arange(n, device=maps.device) for n in size]
    sides = (cells[:, 2:] - cells[:, :2]) * factor
    mask = (inside[0] < sides[:, 1:])[:, :, None] & (inside[1] < sides[:, :1])[:, None, :]
    return crops * mask[:, None]


def forward_rows(
    k: int, factor: int, channels: int, form: torch.memory_format, device: str
) -> Rows:
    """All ways to fill one stack."""
    maps = random_maps(factor, channels, form, device)
    cells, image = random_cells(k).to(device), torch.zeros(k, dtype=torch.long, device=device)
    as_list = cells.tolist()
    arguments = (maps, cells, image, [SHAPE])
    (out,) = encompass_crop(*arguments, grid_size=(GRID, GRID))
    source, target = out.clone(), torch.empty_like(out)
    return {
        "copy of the same bytes": lambda: target.copy_(source),
        "encompass_crop(out=)": lambda: encompass_crop(
            *arguments, grid_size=(GRID, GRID), out=[out]
        )[0],
        "encompass_crop": lambda: encompass_crop(*arguments, grid_size=(GRID, GRID))[0],
        "slices and padding": lambda: slices_and_padding(maps, as_list, factor),
        "torchvision roi_align": lambda: exact_roi_align(maps, cells, factor),
    }


def backward_rows(
    k: int, factor: int, channels: int, form: torch.memory_format, device: str
) -> Rows:
    """Gradients of the maps."""
    maps = random_maps(factor, channels, form, device).requires_grad_()
    cells, image = random_cells(k).to(device), torch.zeros(k, dtype=torch.long, device=device)
    (ours,) = encompass_crop(maps, cells, image, [SHAPE], grid_size=(GRID, GRID))
    padded = pads_and_stack(maps, cells.tolist(), factor)
    upstream = torch.randn(ours.shape, device=device).contiguous(memory_format=form)
    return {
        name: lambda crops=crops: torch.autograd.grad(crops, maps, upstream, retain_graph=True)[0]
        for name, crops in (("pads and stack", padded), ("encompass_crop", ours))
    }


def main() -> None:
    """Run every table for every thread count."""
    parser = arguments(__doc__, repeat=9)
    parser.add_argument("--boxes", type=int, help="default: 100, or 1000 on a GPU")
    args = parser.parse_args()
    boxes = args.boxes or (100 if args.device == "cpu" else 1000)
    tables = []
    for threads in args.threads if args.device == "cpu" else [0]:
        if threads:
            torch.set_num_threads(threads)
        for factor, channels in WORKLOADS:
            for layout, form in FORMATS.items():
                side = GRID * factor
                where = f"{boxes} boxes of {side}x{side}x{channels}, {layout}"
                where += f", {threads} threads" if threads else ""
                workload = (boxes, factor, channels, form, args.device)
                tables.append(table(f"forward, {where}", forward_rows(*workload), args.repeat, 0))
                backward = backward_rows(*workload)
                tables.append(table(f"backward, {where}", backward, args.repeat, 1e-6))
    save(args.json, tables)


if __name__ == "__main__":
    main()
