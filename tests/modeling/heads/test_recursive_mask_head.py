from __future__ import annotations

import pytest
import torch
from torch import nn

from segroi.modeling.heads.recursive_mask_head import (
    RecursiveMaskHead,
    ensemble_masks,
    mask_loop,
)
from segroi.modeling.recursion.schedule import LoopSchedule


def small(carry=True):
    torch.manual_seed(0)
    return RecursiveMaskHead(6, 3, conv_dim=6, num_convs=2, carry=carry)


def heads(count):
    return nn.ModuleList(small() for _ in range(count))


def count_passes(modules):
    calls = [0] * len(modules)

    def hook(index):
        def add(*_):
            calls[index] += 1

        return add

    for index, module in enumerate(modules):
        module.carry.register_forward_hook(hook(index))
    return calls


@pytest.mark.parametrize(("carry", "expected"), [(True, 2_709_072), (False, 2_643_280)])
def test_counts(carry, expected):
    head = RecursiveMaskHead(carry=carry)
    assert sum(p.numel() for p in head.parameters()) == expected
    assert not carry or sum(p.numel() for p in head.carry.parameters()) == 65_792


@pytest.mark.parametrize("alternation", ["a", "aaa", "aab", "aba", "aabbb"])
def test_loop_t_runs_t_plus_1_passes_through_c1(alternation):
    schedule = LoopSchedule.from_alternation(alternation)
    modules = heads(schedule.num_heads)
    x = torch.randn(2, 6, 14, 14)
    for loop in range(len(alternation)):
        calls = count_passes(modules)
        stages = schedule.stages[: loop + 1]
        assert len(mask_loop(modules, stages, x)) == loop + 1
        assert calls == [stages.count(index) for index in range(len(modules))]


def test_passes_follow_equation_3():
    head = small()
    nn.init.constant_(head.carry.conv.bias, 0.3)
    x = torch.randn(2, 6, 14, 14)
    c1 = head.carry.conv
    first = head.convs(x + c1.bias.relu()[:, None, None])
    second = head.convs(x + c1(first).relu())
    passes = mask_loop([head], (0, 0), x)
    torch.testing.assert_close(passes, [first, second])
    logits = [head.predictor(head.deconv(m).relu()) for m in passes]
    probabilities, last = ensemble_masks([head], (0, 0), x)
    torch.testing.assert_close(probabilities, (logits[0].sigmoid() + logits[1].sigmoid()) / 2)
    torch.testing.assert_close(last, logits[1])


def test_gradient_reaches_the_first_pass():
    modules = heads(2)
    x = torch.randn(2, 6, 14, 14)
    modules[1].predict(mask_loop(modules, (0, 1), x)[-1]).sum().backward()
    assert all(p.grad.any() for p in modules[0].convs.parameters())


def test_htc_first_head_without_c1_starts_the_flow_and_refuses_to_continue_it():
    modules = [small(carry=False), small()]
    x = torch.randn(2, 6, 14, 14)
    first, second = mask_loop(modules, (0, 1), x)
    torch.testing.assert_close(first, modules[0].convs(x))
    torch.testing.assert_close(second, modules[1].convs(x + modules[1].carry(first)))
    with pytest.raises(ValueError, match="carry=True"):
        mask_loop(modules, (1, 0), x)


def test_no_rows():
    head = small()
    x = torch.zeros(0, 6, 14, 14, requires_grad=True)
    logits, features = head(x, head.refine(x))
    assert (logits.shape, features.shape) == ((0, 3, 28, 28), (0, 6, 14, 14))
    logits.sum().backward()
    assert all(not p.grad.any() for p in head.parameters())
