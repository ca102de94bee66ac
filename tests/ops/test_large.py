"""Tensors large enough to be written past the caches or to live in pages of their own."""

from __future__ import annotations

import pytest
import torch

from segroi.ops import multi_level_roi_align
from segroi.utils.testing import random_pyramid, random_rois

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
MB = 2**20


@pytest.mark.parametrize("reduce", ["select", "sum"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_outputs_have_the_bits_of_small_ones(layout, reduce):
    scales = (1 / 8, 1 / 16)
    maps = random_pyramid((96, 160), 72, scales=scales, memory_format=LAYOUTS[layout])
    rois = random_rois(1300, (96, 160), sides=(4, 150))
    rois[5, 1:] = 1e6  # reads nothing
    got = multi_level_roi_align(maps, rois, 7, scales, 2, reduce=reduce)
    assert got.nbytes > 16 * MB
    parts = [multi_level_roi_align(maps, r, 7, scales, 2, reduce=reduce) for r in rois.split(200)]
    assert torch.equal(got, torch.cat(parts))
    odd = torch.empty(got.numel() + 3)[3:].as_strided(got.shape, got.stride())
    multi_level_roi_align(maps, rois, 7, scales, 2, reduce=reduce, out=odd)
    assert torch.equal(odd, got)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_gradients_have_the_bits_of_small_ones(layout):
    def gradient(maps, seed):
        maps = maps.contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
        out = multi_level_roi_align([maps], rois, 7, (1 / 4,), 2)
        return torch.autograd.grad(out, maps, seed.contiguous(memory_format=LAYOUTS[layout]))[0]

    (maps,) = random_pyramid((1200, 1200), 128, scales=(1 / 4,))
    rois = random_rois(20, (1200, 1200))
    seed = torch.randn(20, 128, 7, 7)
    got = gradient(maps, seed)
    assert got.nbytes > 32 * MB
    halves = [gradient(m, s) for m, s in zip(maps.split(64, 1), seed.split(64, 1))]
    assert torch.equal(got, torch.cat(halves, 1))
