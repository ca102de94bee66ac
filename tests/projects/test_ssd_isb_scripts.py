"""The scripts of projects/SSD-ISB run, on a few scenes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parents[2] / "projects" / "SSD-ISB" / "crowded.py"


def test_crowded_scenes(tmp_path):
    crowded = runpy.run_path(str(SCRIPT))
    words = "--scenes 4 --val-scenes 4 --iterations 1 --batch-size 2 --depth 0.25 --seeds 0 1"
    assert crowded["main"]([*words.split(), "--output", str(tmp_path)]) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert list(table) == list(crowded["ROWS"].values())
    means = [row[0] for row in table.values()]
    assert means[0][-1] == means[1][-1]  # one detector: the boxes are the same
    assert (tmp_path / "crowded.jpg").stat().st_size > 10_000


def test_objects_with_one_mask_cannot_both_be_told_apart():
    crowded = runpy.run_path(str(SCRIPT))
    rivals = torch.tensor([[False, True, False], [True, False, False], [False] * 3])
    one_mask = torch.tensor([[0.6, 0.2, 0.0], [0.6, 0.2, 0.0], [0.0, 0.0, 0.9]])
    own_masks = torch.diag(torch.tensor([0.6, 0.5, 0.9]))
    masks = torch.zeros(3, 1, 1, dtype=torch.bool)
    scenes = [[crowded["Objects"](masks, iou, rivals)] for iou in (one_mask, own_masks)]
    assert crowded["told_apart"](scenes[0]) == [90, 40, 50]
    assert crowded["told_apart"](scenes[1]) == [90, 55, 100]
