"""Pyramids and RoIs for tests and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def random_pyramid(
    image_size: tuple[int, int] = (800, 1216),
    channels: int = 256,
    images: int = 1,
    scales: Sequence[float] = SCALES,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    seed: int = 0,
) -> list[Tensor]:
    """Normally distributed maps ``Tensor[N, C, H_l, W_l]`` of an image of ``image_size`` px."""
    g = torch.Generator().manual_seed(seed)
    sizes = [[math.ceil(side * scale) for side in image_size] for scale in scales]
    return [
        torch.randn(images, channels, *size, generator=g, dtype=torch.float64)
        .to(dtype)
        .contiguous(memory_format=memory_format)
        for size in sizes
    ]


def random_rois(
    count: int,
    image_size: tuple[int, int] = (800, 1216),
    images: int = 1,
    sides: tuple[float, float] = (16.0, 600.0),
    clip: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Tensor:
    """RoIs ``Tensor[count, 5]`` as proposals are: sides log-uniform in px, centres anywhere.

    Aspect ratios lie in [0.54, 1.87]; ``clip`` cuts the boxes to the image.
    """
    g = torch.Generator().manual_seed(seed)
    low, high = (math.log(side) for side in sides)
    side = (torch.rand(count, generator=g, dtype=torch.float64) * (high - low) + low).exp()
    root = ((torch.rand(count, generator=g, dtype=torch.float64) - 0.5) * 0.62).exp()
    half = torch.stack([side * root, side / root], 1) / 2
    limits = torch.tensor([image_size[1], image_size[0]], dtype=torch.float64)
    centre = torch.rand(count, 2, generator=g, dtype=torch.float64) * limits
    low_corner, high_corner = centre - half, centre + half
    if clip:
        zero = torch.zeros(2, dtype=torch.float64)
        low_corner = low_corner.clamp(zero, limits)
        high_corner = high_corner.clamp(zero, limits)
    image = torch.randint(images, (count, 1), generator=g).double()
    return torch.cat([image, low_corner, high_corner], 1).to(dtype)
