"""Accumulated batches: the step of one large batch, in both launchers' trainer."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from segroi.d2.accumulation import AccumulatingTrainer, build_step_trainer


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, data):
        x = torch.stack([d["x"] for d in data])
        return {
            "loss_line": (self.line(x)[:, 0] - 1).square().mean(),
            "loss_size": self.line.weight.square().sum(),
        }


def batches(count, size):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count * size, 3, generator=generator)
    return [[{"x": x} for x in rows[i : i + size]] for i in range(0, count * size, size)]


def run(model, loader, steps, accumulated):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = build_step_trainer(model, loader, optimizer, accumulated)
    trainer.train(0, steps)
    return trainer, trainer.storage.latest()


def test_three_batches_are_one_of_three_times_the_size():
    torch.manual_seed(0)
    model = Regression()
    other = copy.deepcopy(model)
    trainer, logged = run(model, batches(4, 6), 4, 1)
    assert type(trainer) is SimpleTrainer
    accumulating, also = run(other, batches(12, 2), 4, 3)
    assert isinstance(accumulating, AccumulatingTrainer)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    for name in ("total_loss", "loss_line", "loss_size"):
        assert also[name][0] == pytest.approx(logged[name][0], rel=1e-5)
        assert also[name][1] == logged[name][1] == 3, "iterations are steps"


def test_the_state_can_be_resumed():
    trainer, _ = run(Regression(), batches(4, 2), 2, 2)
    other = AccumulatingTrainer(Regression(), [], trainer.optimizer, 2)
    other.load_state_dict(trainer.state_dict())
    assert other.iter == trainer.iter


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="batches must be at least 1, got 0"):
        build_step_trainer(Regression(), [], None, 0)
