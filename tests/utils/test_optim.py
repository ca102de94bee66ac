from __future__ import annotations

import pytest
import torch
from torch import nn

from segroi.utils.optim import TFRMSprop, decay_convolutions, slow_modules


def test_equals_the_formulas():
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = TFRMSprop([w], lr=0.1, decay=0.8, momentum=0.5, eps=0.25, weight_decay=0.01)
    value, square, velocity = w.detach().clone(), torch.ones(2), torch.zeros(2)
    for step in range(4):
        optimizer.zero_grad()
        (w**2 * (step + 1)).sum().backward()
        gradient = 2 * value * (step + 1) + 0.01 * value
        square = 0.8 * square + 0.2 * gradient**2
        velocity = 0.5 * velocity + 0.1 * gradient / (square + 0.25).sqrt()
        value = value - velocity
        optimizer.step()
        torch.testing.assert_close(w.detach(), value)


def test_the_loss_weight_scales_the_step():
    steps = []
    for weight in (1.0, 10.0):
        w = nn.Parameter(torch.tensor([1.0]))
        optimizer = TFRMSprop([w], lr=1e-3)
        (0.01 * weight * w).sum().backward()
        optimizer.step()
        steps.append(1 - w.item())
    assert steps[1] / steps[0] == pytest.approx(10, rel=0.02)


def test_groups_and_arguments():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    groups = decay_convolutions(model, 0.1)
    assert [len(g["params"]) for g in groups] == [1, 3]
    TFRMSprop(groups).step()  # no gradients: nothing happens
    with pytest.raises(ValueError, match="TFRMSprop"):
        TFRMSprop(groups, decay=1.5)


def test_named_modules_learn_slowly():
    factor = slow_modules(["heads.box", "neck"], 0.1)
    names = ("heads.box.0.weight", "neck.bias", "heads.box_predictor.weight", "heads.mask.weight")
    assert [factor(name) for name in names] == [0.1, 0.1, 1.0, 1.0]
