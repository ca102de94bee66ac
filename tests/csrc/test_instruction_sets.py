"""Every build of the CPU engine, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from segroi.ops import crop_and_resize, multi_level_roi_align
from segroi.ops.multi_level_roi_align import _COMPILED
from segroi.ops.reference.crop_and_resize import crop_and_resize as crop_reference
from segroi.ops.reference.multi_level_roi_align import multi_level_roi_align as reference
from segroi.utils.testing import SCALES, random_pyramid, random_rois

IMAGE = (200, 300)
DTYPES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
pytestmark = [
    pytest.mark.skipif(not _COMPILED, reason="the extension is not built"),
    pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"]),  # the best this machine has
    pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:]),
    pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last]),
]


def close(got, want, dtype):
    scale = max(1.0, want.abs().max().item())
    torch.testing.assert_close(got.double(), want, rtol=DTYPES[dtype], atol=DTYPES[dtype] * scale)


def leaves(maps, dtype, layout):
    return [m.to(dtype).contiguous(memory_format=layout).requires_grad_() for m in maps]


@pytest.mark.parametrize("size", [(7, 7), (3, 19)])
def test_multi_level_roi_align(monkeypatch, isa, dtype, layout, size):
    monkeypatch.setenv("SEGROI_ISA", isa)
    whole = [m.mul(4).round() for m in random_pyramid(IMAGE, 21, 2, dtype=torch.float64)]
    rois = random_rois(6, IMAGE, 2, (4, 250), clip=False)
    mine, theirs = leaves(whole, dtype, layout), leaves(whole, torch.float64, layout)
    boxes = rois if dtype != torch.float64 else rois.double()
    got = multi_level_roi_align(mine, boxes, size, SCALES, reduce="sum")
    want = reference(theirs, rois.double(), size, SCALES, reduce="sum")
    close(got, want, dtype)
    upstream = (torch.arange(want.numel()).view(want.shape) % 5 - 2).double()
    grads = torch.autograd.grad(got, mine, upstream.to(dtype))
    for grad, exact in zip(grads, torch.autograd.grad(want, theirs, upstream), strict=True):
        close(grad, exact, dtype)


@pytest.mark.parametrize("coordinates", ["tf", "aligned"])
def test_crop_and_resize(monkeypatch, isa, dtype, layout, coordinates):
    monkeypatch.setenv("SEGROI_ISA", isa)
    (whole,) = random_pyramid((30, 50), 10, 2, (1.0,), torch.float64)
    whole = whole.mul(4).round()
    boxes = random_rois(5, (30, 50), 1, (2, 60), clip=False)[:, 1:]
    if coordinates == "tf":
        boxes = boxes[:, [1, 0, 3, 2]] / 50
    boxes[0] = boxes[0].roll(2)  # mirrored
    index = torch.tensor([0, 1, 0, 1, 1])
    (mine,), (theirs,) = leaves([whole], dtype, layout), leaves([whole], torch.float64, layout)
    options = ([12, 20], "bilinear", -1.5, coordinates, 2)
    got = crop_and_resize(
        mine, boxes if dtype != torch.float64 else boxes.double(), index, *options
    )
    want = crop_reference(theirs, boxes.double(), index, *options)
    close(got, want, dtype)
    close(
        torch.autograd.grad(got.sum(), mine)[0],
        torch.autograd.grad(want.sum(), theirs)[0],
        dtype,
    )


@pytest.mark.parametrize("width", [2, 7, 16, 45])
def test_numbers_are_rounded_as_torch_rounds_them(monkeypatch, isa, dtype, layout, width):
    """Samples half way between two numbers of the type, and numbers that are none."""
    monkeypatch.setenv("SEGROI_ISA", isa)
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**15), 2**15, (1, 37, 1, width), generator=generator)
    bits = torch.cat([bits, bits ^ 1], dim=2).to(torch.int16)
    short = torch.bfloat16 if dtype == torch.bfloat16 else torch.float16
    maps = bits.view(short).to(dtype).contiguous(memory_format=layout)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    between = torch.tensor([[0.5, 0, 0.5, 1]], dtype=wide)  # of the two rows
    got = crop_and_resize(maps, between, torch.tensor([0]), [1, width], coordinates="tf")
    above, below = maps.to(wide).split(1, dim=2)
    want = (above * 0.5 + below * 0.5).to(dtype)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
