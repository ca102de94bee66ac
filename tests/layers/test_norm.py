"""Batch norms folded into the convolutions before them."""

from __future__ import annotations

import torch
from torch import nn

from segroi.layers.norm import fold_batch_norms


def block():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.running_mean)
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), norm), nn.ReLU())


def test_folding_computes_the_same_without_norms():
    model, images = block().eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        before = model(images)
        assert fold_batch_norms(model) is model
        torch.testing.assert_close(model(images), before)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_norms_in_training_stay():
    model = fold_batch_norms(block().train())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
