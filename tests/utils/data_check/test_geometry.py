from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle_codec

from segroi.utils.data_check.geometry import (
    Polygons,
    crosses_itself,
    is_flat,
    rle_bounds,
    rle_runs,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_runs_of_compressed_codes(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = rle_runs(code["counts"])
    assert runs == rle_runs(code["counts"].decode()) == rle_runs(runs)
    values = np.concatenate([np.full(n, i % 2, bool) for i, n in enumerate(runs)])
    assert np.array_equal(values.reshape(width, height).T, mask)


@pytest.mark.parametrize("counts", [None, 3, "P", "ПП", "o", [1, -2], [1.5], [True], "PPPPPPPPPP1"])
def test_no_run_lengths(counts):
    assert rle_runs(counts) is None


def test_bounds_and_areas_of_many():
    polygons = Polygons()
    assert polygons.add(5, [0, 0, 4, 0, 4, 3])
    assert not polygons.add(6, [1, 2, "3", 4, 5, 6])
    assert polygons.add(7, [1.5, 1, 1.5, 9, 2.5, 9, 2.5, 1])
    assert polygons.owners == [5, 7]
    assert polygons.bounds().tolist() == [[0, 0, 4, 3], [1.5, 1, 2.5, 9]]
    assert polygons.areas().tolist() == [6, 8]
    assert polygons.polygon(1).tolist() == [[1.5, 1], [1.5, 9], [2.5, 9], [2.5, 1]]


@pytest.mark.parametrize(
    ("points", "crossing"),
    [
        ([0, 0, 4, 0, 4, 4, 0, 4], False),
        ([0, 0, 4, 4, 4, 0, 0, 4], True),
        ([0, 0, 4, 0, 2, 0, 2, 3], False),  # runs back on itself
        ([0, 0, 4, 0, 4, 4, 2, 0, 0, 4], False),  # touches itself
        ([0, 0, 9, 0, 9, 9, 4, -2, 0, 9], True),
        ([0, 0, 4, 0, 4, 4], False),
    ],
)
def test_crossings(points, crossing):
    assert crosses_itself(np.array(points, float).reshape(-1, 2)) is crossing


@pytest.mark.parametrize(
    ("points", "flat"),
    [
        ([3, 3, 3, 3, 3, 3], True),
        ([0, 0, 5, 5, 10, 10], True),
        ([0, 0, 5, 5, 10, 10.1], False),
        ([0, 0, 4, 4, 4, 0, 0, 4], False),
    ],
)
def test_flat_polygons(points, flat):
    assert is_flat(np.array(points, float).reshape(-1, 2)) is flat


def test_bounds_of_both_kinds_of_codes():
    mask = np.zeros((6, 9), np.uint8)
    mask[2:5, 3:7] = 1
    packed = rle_codec.encode(np.asfortranarray(mask))
    runs = {"size": [6, 9], "counts": rle_runs(packed["counts"])}
    assert rle_bounds([packed, runs], [(9, 6)] * 2).tolist() == [[3, 2, 7, 5]] * 2
    assert rle_bounds([], []).shape == (0, 4)
