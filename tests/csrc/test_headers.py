"""The torch-free arithmetic, compiled by itself and called through ctypes."""

from __future__ import annotations

import ctypes
import math
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from segroi.ops.reference.multi_level_roi_align import axis_matrix

ROOT = Path(__file__).resolve().parents[2]
NAN, INF = math.nan, math.inf
I32, F64 = ctypes.c_int, ctypes.c_double
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    library = tmp_path_factory.mktemp("headers") / "headers.so"
    command = ["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-Wall", "-Werror", "-shared"]
    sources = [ROOT / "tests/csrc/headers.cpp", ROOT / "csrc/cpu/axis_table.cpp"]
    command += ["-fPIC", f"-I{ROOT / 'csrc'}", "-o", str(library), *map(str, sources)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.level_of.argtypes = [I32, I32, F64, I32, ctypes.c_void_p]
    loaded.roi_align_matrix.argtypes = [F64, F64, F64, *[I32] * 6, *[ctypes.c_void_p] * 2]
    loaded.samples_looked_at.argtypes = [F64, F64, I32, I32]
    loaded.samples_looked_at.restype = ctypes.c_int64
    return loaded


@pytest.mark.parametrize(
    ("side", "level"),
    [(0, 0), (111.99, 0), (112, 1), (223.99, 1), (224, 2), (448, 3), (1e30, 3), (NAN, 0), (INF, 3)],
)
def test_level_of_a_square(headers, side, level):
    box = (ctypes.c_float * 4)(0, 0, side, side)
    assert headers.level_of(2, 4, 224, 4, box) == level


def test_level_depends_on_the_area_alone(headers):
    assert headers.level_of(2, 4, 224, 4, (ctypes.c_float * 4)(5, 5, 5 + 448, 5 + 112)) == 2
    assert headers.level_of(2, 4, 224, 4, (ctypes.c_float * 4)(9, 9, 5, 5)) == 0
    assert headers.level_of(3, 2, 100, 5, (ctypes.c_float * 4)(0, 0, 50, 50)) == 1


def dense(headers, setting, length, bins, transposed, width):
    taps = torch.zeros(bins, length, dtype=torch.float64)
    lanes = torch.zeros_like(taps)
    start, end, scale, ratio, aligned = setting
    headers.roi_align_matrix(
        start, end, scale, bins, ratio, aligned, length, transposed, width,
        taps.data_ptr(), lanes.data_ptr(),
    )  # fmt: skip
    return taps, lanes


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("width", [3, 4, 8, 16])
def test_tables_are_the_references_matrix(headers, width, transposed):
    random.seed(width)
    for _ in range(200):
        length, bins = random.choice([1, 2, 17, 90]), random.choice([1, 2, 7, 14, 40])
        start = random.uniform(-30, 120)
        end = start + random.choice([0, random.uniform(0, 1), random.uniform(0, 200), -1])
        scale, ratio = random.choice([0.25, 1, 1 / 3]), random.choice([0, 1, 2, 5])
        aligned = random.random() < 0.5
        want = torch.zeros(bins, length, dtype=torch.float64)
        ends = torch.tensor([start, end], dtype=torch.float64)
        weights, pixels = axis_matrix(*ends, length, bins, scale, ratio, aligned)
        want[:, pixels] = weights
        setting = (start, end, scale, ratio, aligned)
        taps, lanes = dense(headers, setting, length, bins, transposed, width)
        torch.testing.assert_close(taps, want, rtol=0, atol=1e-12)
        torch.testing.assert_close(lanes, taps, rtol=0, atol=1e-15)


def test_huge_boxes_cost_no_more_than_the_map(headers):
    for size in (1e3, 1e6, 1e9, 1e30):
        assert headers.samples_looked_at(-size, size, 7, 50) <= 60
