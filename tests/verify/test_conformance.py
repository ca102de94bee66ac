from __future__ import annotations

import importlib.util

import pytest
import torch

from segroi.verify.conformance import PEERS, compare_with


@pytest.mark.parametrize("name", PEERS)
def test_peer(name):
    compare, modules = PEERS[name]
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    worst, different = compare_with(name, compare, 200, seed=1)
    assert different == 0 and 0 < worst < 2e-4


def test_a_difference_is_found():
    def compare(setting, k):
        yield torch.zeros(k), torch.full((k,), 1e-3)

    assert compare_with("", compare, 100, seed=0) == (pytest.approx(1e-3), 2)
