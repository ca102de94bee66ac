"""Time crop_and_resize: plain crops, and the subnetwork's sample, pool and convolve (W4).

Rows run interleaved in one process and are checked equal before anything is timed.

    python scripts/benchmarks/bench_crop_and_resize.py [--threads 1 2] [--rois 128] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from common import Rows, arguments, save, table
from torch import Tensor
from torch.nn import functional as F

from segroi.modeling.roi_extractors.convolve_maps import convolve_pixels, pixels_read
from segroi.ops import crop_and_resize
from segroi.ops._layout import empty_large

STRIDE, HEIGHT, WIDTH = 16, 50, 76  # C4 of an 800 x 1216 image
AT_ONCE = 32  # RoIs whose crops a cache holds until they are convolved


def boxes_in_cells(k: int) -> Tensor:
    """Boxes (x0, y0, x1, y1): sides of 16 to 600 px, log-uniform, clipped to the image."""
    g = torch.Generator().manual_seed(0)
    side = 16 * (600 / 16) ** torch.rand(k, 1, generator=g) / STRIDE
    aspect = torch.exp((torch.rand(k, 1, generator=g) - 0.5) * 1.24)
    half = torch.cat([side * aspect, side / aspect], 1) / 2
    centre = torch.rand(k, 2, generator=g) * torch.tensor([WIDTH, HEIGHT])
    limit = torch.tensor([WIDTH, HEIGHT]).float()
    low = (centre - half).clamp(min=0)
    return torch.cat([low, torch.minimum(centre + half, limit)], 1)


def sampling_grid(boxes: Tensor, size: int) -> Tensor:
    """The same samples for ``grid_sample`` (align_corners=False), ``Tensor[K, size, size, 2]``."""
    at = (torch.arange(size, device=boxes.device) + 0.5) / size
    x = boxes[:, :1] + at * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + at * (boxes[:, 3:] - boxes[:, 1:2])
    x, y = 2 * x / WIDTH - 1, 2 * y / HEIGHT - 1
    shape = (len(boxes), size, size)
    return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], -1)


def sample(maps: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crops by ``grid_sample``, what plain PyTorch offers."""
    grid = sampling_grid(boxes, size)
    maps = maps.expand(len(boxes), -1, -1, -1)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def subnetwork_rows(k: int, device: str, channels: int = 1024, out: int = 256) -> Rows:
    """W4: crops of 14, 28 and 56 of each RoI, 1x1 convolutions, averages to 14, concatenated."""
    torch.manual_seed(0)
    maps = torch.randn(1, channels, HEIGHT, WIDTH, device=device)
    boxes, index = boxes_in_cells(k).to(device), torch.zeros(k, dtype=torch.long, device=device)
    weights = [torch.randn(out, channels, 1, 1, device=device) / channels**0.5 for _ in range(3)]
    biases = [torch.randn(out, device=device) for _ in range(3)]
    branches = list(zip((1, 2, 4), weights, biases, strict=True))

    def fused(maps: Tensor, boxes: Tensor, pool: int) -> Tensor:
        at = index[: len(boxes)]
        return crop_and_resize(maps, boxes, at, 14 * pool, coordinates="aligned", pool=pool)

    def joined(branch: Callable[[int, Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.cat([branch(*each) for each in branches], 1)

    def crops_first() -> Tensor:
        last = maps.contiguous(memory_format=torch.channels_last)
        crops = empty_large(maps, (k, 3 * out, 14, 14), channels_last=True)
        for (pool, w, b), part in zip(branches, crops.split(out, 1)):
            for some, place in zip(boxes.split(AT_ONCE), part.split(AT_ONCE)):
                place.copy_(F.conv2d(fused(last, some, pool), w, b))
        return crops

    def map_first() -> Tensor:
        where = None if maps.is_cuda else pixels_read(boxes - 0.5, index, (1, HEIGHT, WIDTH))
        convolved = convolve_pixels(maps, torch.cat(weights), where).split(out, 1)
        crops = empty_large(maps, (k, 3 * out, 14, 14), channels_last=True)
        for (pool, _, b), some, place in zip(branches, convolved, crops.split(out, 1)):
            torch.add(fused(some, boxes, pool), b[:, None, None], out=place)
        return crops

    return {
        "grid_sample, convolve, pool": joined(
            lambda p, w, b: F.avg_pool2d(F.conv2d(sample(maps, boxes, 14 * p), w, b), p)
        ),
        "grid_sample, pool, convolve": joined(
            lambda p, w, b: F.conv2d(F.avg_pool2d(sample(maps, boxes, 14 * p), p), w, b)
        ),
        "crop_and_resize with pool, convolve": crops_first,
        "convolve the map, crop_and_resize with pool": map_first,
    }


def crop_rows(k: int, channels: int, size: int, pool: int, backward: bool, device: str) -> Rows:
    """Plain crops of one map: ours in both layouts, torchvision's roi_align, grid_sample."""
    torch.manual_seed(0)
    maps = torch.randn(1, channels, HEIGHT, WIDTH, device=device)
    boxes, index = boxes_in_cells(k).to(device), torch.zeros(k, dtype=torch.long, device=device)
    rois = torch.cat([boxes.new_zeros(k, 1), boxes], 1)
    nhwc = maps.contiguous(memory_format=torch.channels_last)
    seed = torch.randn(k, channels, size // pool, size // pool, device=device)

    def ours(maps: Tensor) -> Tensor:
        return crop_and_resize(maps, boxes, index, size, coordinates="aligned", pool=pool)

    def torchvision_crop(maps: Tensor) -> Tensor:
        return torchvision.ops.roi_align(maps, rois, size // pool, 1.0, pool, True)

    def plain(maps: Tensor) -> Tensor:
        return F.avg_pool2d(sample(maps, boxes, size), pool)

    def row(crop: Callable[[Tensor], Tensor], maps: Tensor) -> Callable[[], Tensor]:
        if not backward:
            return lambda: crop(maps)
        leaf = maps.detach().requires_grad_()
        crops = crop(leaf)
        upstream = seed.contiguous(memory_format=_format(crops))
        return lambda: torch.autograd.grad(crops, leaf, upstream, retain_graph=True)[0]

    return {
        "torchvision roi_align": row(torchvision_crop, maps),
        "grid_sample": row(plain, maps),
        "crop_and_resize": row(ours, maps),
        "crop_and_resize, channels_last": row(ours, nhwc),
    }


def _format(t: Tensor) -> torch.memory_format:
    nhwc = t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
    return torch.channels_last if nhwc else torch.contiguous_format


def main() -> None:
    """Run every table for every thread count."""
    parser = arguments(__doc__, repeat=5)
    parser.add_argument("--rois", type=int, default=128)
    args = parser.parse_args()
    tables = []
    torch.backends.cudnn.allow_tf32 = False  # convolutions are checked like the rest
    for threads in args.threads if args.device == "cpu" else [0]:
        where = f"{args.rois} RoIs"
        if threads:
            torch.set_num_threads(threads)
            where += f", {threads} threads"
        for size, pool in ((14, 1), (28, 2), (56, 4)):
            for backward in (False, True):
                rows = crop_rows(args.rois, 256, size, pool, backward, args.device)
                way = "backward" if backward else "forward"
                title = f"crop {size} pool {pool}, 256 channels, {way}, {where}"
                tables.append(table(title, rows, args.repeat, 1e-3))
        for rois in sorted({32, args.rois}):
            title = f"W4 subnetwork, {where}".replace(f"{args.rois} RoIs", f"{rois} RoIs")
            with torch.no_grad():
                rows = subnetwork_rows(rois, args.device)
                tables.append(table(title, rows, max(1, args.repeat // 2), 1e-3))
    save(args.json, tables)


if __name__ == "__main__":
    main()
