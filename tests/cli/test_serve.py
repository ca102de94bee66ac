from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from segroi.cli import _page
from segroi.cli.main import main
from segroi.utils.suggest import UsageError

CATEGORIES = [{"name": "red"}, {"name": "green"}]


class Two(torch.nn.Module):
    """Finds a sure red object and a doubtful green one in every image."""

    def forward(self, images):
        masks = torch.zeros(2, 1, *images[0].shape[1:])
        masks[:, :, 4:20, 4:20] = 1
        boxes = torch.tensor([[4.0, 4, 20, 20], [8, 8, 30, 30]])
        found = {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}
        return [{**found, "scores": torch.tensor([0.9, 0.4])} for _ in images]


def test_what_the_page_calls(monkeypatch):
    predict = _page.predictor(Two(), CATEGORIES)
    pixels = np.zeros((40, 50, 3), np.uint8)
    picture, rows = predict(pixels, 0.5)
    assert picture.shape[0] * 50 == picture.shape[1] * 40 and picture.any()  # small ones grow
    assert rows == [["red", 0.9, 4.0, 4.0, 20.0, 20.0]]
    assert [row[0] for row in predict(pixels, 0.3)[1]] == ["red", "green"]
    with pytest.raises(UsageError, match="drop an image first"):
        predict(None, 0.5)
    monkeypatch.setattr(_page, "MAX_PIXELS", 1999)
    with pytest.raises(UsageError, match="50 x 40 px are more than"):
        predict(pixels, 0.5)


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", "--weights", "x.pth"]) == 2
    assert 'pip install "segroi[serve]"' in capsys.readouterr().err


def test_the_page_is_built():
    pytest.importorskip("gradio")
    page = _page.build_page(Two(), CATEGORIES)
    assert {block.label for block in page.blocks.values() if hasattr(block, "label")} >= {"image"}
    picture, table = page.fns[0].fn(np.zeros((40, 50, 3), np.uint8), 0.5)
    assert picture.any() and table[0][0] == "red"
    assert not page.analytics_enabled
