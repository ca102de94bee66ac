"""The CUDA kernels of encompass_crop, run on the CPU against the reference."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from segroi.ops import encompassing_boxes, stack_rows
from segroi.ops.reference import encompass_crop as reference

HERE = Path(__file__).parent
GRID, FACTOR, CHANNELS = (5, 6), 2, 4
SHAPES, ROWS = [(3, 4), (4, 2)], [5, 4]
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


class Problem(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("cells", "image", "source", "offsets")],
        *[
            (name, ctypes.c_int64)
            for name in (
                "boxes",
                "images",
                "grid_h",
                "grid_w",
                "factor",
                "channels",
                "channels_last",
                "stacks",
            )
        ],
        ("shapes", ctypes.c_void_p),
        ("packed_total", ctypes.c_int64),
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("encompass") / "kernels.so"
    source = HERE / "encompass_crop_kernels.cpp"
    include = HERE.parents[1] / "csrc"
    command = ["g++", "-std=c++17", "-O1", "-g", "-shared", "-fPIC", f"-I{include}", f"-I{HERE}"]
    subprocess.run([*command, str(source), "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


def layout(t, channels_last):
    return t.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def pointers(tensors):
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


def pointer(t):
    return ctypes.c_void_p(t.data_ptr())


@pytest.fixture
def boxes():
    generator = torch.Generator().manual_seed(0)
    size = torch.stack([torch.tensor([4, 2, 1, 3, 2, 2, 1, 2]), torch.tensor([3, 4, 1] * 3)[:8]], 1)
    corner = (torch.rand(8, 2, generator=generator) * (torch.tensor([6, 5]) - size + 1)).long()
    cells = torch.cat([corner, corner + size], dim=1)
    branch = torch.tensor([0, 1, 0, 0, 1, 1, 0, -1])
    return cells, torch.tensor([0, 1, 1, 0, 1, 0, 7, 0]), branch  # box 6 has no such image


def problem(cells, image, source, offsets, channels_last, shapes):
    self = Problem(boxes=len(cells), images=2, grid_h=GRID[0], grid_w=GRID[1], factor=FACTOR)
    self.cells, self.image = cells.data_ptr(), image.data_ptr()
    self.source = None if source is None else source.data_ptr()
    self.offsets = None if offsets is None else offsets.data_ptr()
    self.packed_total = 0 if offsets is None else int(offsets[-1])
    self.channels, self.channels_last = CHANNELS, channels_last
    self.shapes, self.stacks = shapes.data_ptr(), shapes.numel() // 3
    return self


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_stacks(library, boxes, channels_last, wide, order):
    cells, image, branch = boxes
    source = stack_rows(branch, ROWS)
    shapes = torch.tensor([[*shape, n] for shape, n in zip(SHAPES, ROWS)])
    features = layout(torch.randn(2, CHANNELS, GRID[0] * FACTOR, GRID[1] * FACTOR), channels_last)
    features.requires_grad_()
    expected = reference.encompass_crop(
        [features], cells, image, source, SHAPES, ROWS, GRID, zero_invalid=True
    )
    crops = [layout(torch.full_like(t, 9.0), channels_last) for t in expected]
    arguments = problem(cells, image, source, None, channels_last, shapes)
    error = torch.zeros(1).long()
    library.crop_floats(
        ctypes.byref(arguments), pointer(features), pointers(crops), wide, order, pointer(error)
    )
    assert all(torch.equal(ours, crop) for ours, crop in zip(crops, expected))
    assert error.item() == 3 << 48 | 6

    weights = [layout(torch.randn_like(t), channels_last) for t in expected]
    loss = sum((w * t).sum() for w, t in zip(weights, expected))
    (gradient,) = torch.autograd.grad(loss, features)
    ours = layout(torch.full_like(features, 9.0), channels_last).detach()
    library.grad_floats(ctypes.byref(arguments), pointer(ours), pointers(weights), order)
    torch.testing.assert_close(ours, gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_packed(library, boxes, channels_last):
    cells, image, _ = boxes
    features = layout(torch.randn(2, CHANNELS, GRID[0] * FACTOR, GRID[1] * FACTOR), channels_last)
    features.requires_grad_()
    (expected,) = reference.encompass_crop_packed([features], cells, image, GRID, True)
    area = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]) * (image < 2)
    offsets = torch.cat([area.new_zeros(1), area.cumsum(0)])
    memory = torch.full((len(expected), CHANNELS) if channels_last else expected.t().shape, 9.0)
    arguments = problem(
        cells, image, None, offsets, channels_last, torch.tensor([0, 0, len(cells)])
    )
    shapes = torch.tensor([0, 0, len(cells)])
    arguments.shapes = shapes.data_ptr()
    library.crop_floats(
        ctypes.byref(arguments), pointer(features), pointers([memory]), False, 0, None
    )
    values = memory if channels_last else memory.t()
    assert torch.equal(values, expected)

    weights = torch.randn_like(memory)
    shaped = weights if channels_last else weights.t()
    (gradient,) = torch.autograd.grad((expected * shaped).sum(), features)
    ours = torch.full_like(features, 9.0).detach()
    library.grad_floats(ctypes.byref(arguments), pointer(ours), pointers([weights]), 0)
    torch.testing.assert_close(ours, gradient, rtol=0, atol=1e-6)


def test_integers_equal_those_of_the_cpu(library):
    corners = torch.rand(700, 4, generator=torch.Generator().manual_seed(2)) * 900 - 100
    corners[::7] = (corners[::7] / 32).round() * 32  # on grid lines
    corners[5, 2] = float("nan")
    cells, error = torch.full((700, 4), -9), torch.zeros(1).long()
    sizes = (ctypes.c_double(640), ctypes.c_double(853), ctypes.c_int64(20), ctypes.c_int64(27))
    library.cells_of_floats(
        pointer(corners), ctypes.c_int64(700), *sizes, pointer(cells), pointer(error)
    )
    assert torch.equal(cells, encompassing_boxes(corners, (640, 853), (20, 27), "zero"))
    assert error.item() == 3 << 48 | 5

    branch = torch.randint(-1, 4, (300,), generator=torch.Generator().manual_seed(3))
    rows = [40, 90, 80]
    first = torch.tensor([0, 40, 130, 210])
    source = torch.full((210,), -1)
    library.rows_of_boxes(
        pointer(branch), ctypes.c_int64(300), pointer(first), 3, pointer(source), None
    )
    assert torch.equal(source, stack_rows(branch, rows, "zero"))
