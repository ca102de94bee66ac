from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from segroi.layers.weighted_box_average import weighted_box_average


def naive(boxes, weights, threshold):
    averages = []
    for cells, confidence in zip(boxes.tolist(), weights.tolist()):
        kept = [w if threshold is None or w > threshold else 0.0 for w in confidence]
        if sum(kept) == 0:
            kept = confidence
        if sum(kept) == 0:
            kept = [1.0] * len(kept)
        total = sum(kept)
        averages.append([sum(w * c[i] for w, c in zip(kept, cells)) / total for i in range(4)])
    return torch.tensor(averages, dtype=boxes.dtype).reshape(-1, 4)


def random_case(seed, num=5, cells=49, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num, cells, 2, 2, generator=generator, dtype=dtype) * 300
    boxes = torch.cat((corners.amin(2), corners.amax(2)), dim=-1)
    return boxes, torch.rand(num, cells, generator=generator, dtype=dtype)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 0.9, 1.0])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 0.3, 1.0]))
def test_agrees_with_naive_reference(threshold, seed, scale):
    boxes, weights = random_case(seed, cells=7)
    weights = weights * scale
    expected = naive(boxes, weights, threshold)
    torch.testing.assert_close(weighted_box_average(boxes, weights, threshold), expected)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.7])
def test_equal_weights_give_the_mean(weight):
    boxes, weights = random_case(1)
    average = weighted_box_average(boxes, torch.full_like(weights, weight))
    torch.testing.assert_close(average, boxes.mean(1))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_lies_inside_the_hull_and_ignores_the_order(seed):
    boxes, weights = random_case(seed)
    average = weighted_box_average(boxes, weights)
    assert (average >= boxes.amin(1) - 1e-9).all() and (average <= boxes.amax(1) + 1e-9).all()
    order = torch.randperm(boxes.shape[1], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(weighted_box_average(boxes[:, order], weights[:, order]), average)


def test_only_confident_cells_take_part():
    boxes, weights = random_case(2, cells=4)
    weights[:] = torch.tensor([0.5, 0.51, 0.2, 0.0])
    torch.testing.assert_close(weighted_box_average(boxes, weights), boxes[:, 1])


def test_falls_back_to_all_weights_when_no_cell_passes():
    boxes, weights = random_case(3)
    weights = weights * 0.5
    expected = weighted_box_average(boxes, weights, threshold=None)
    torch.testing.assert_close(weighted_box_average(boxes, weights), expected)
    assert not torch.allclose(expected, boxes.mean(1))


def test_zero_weights_have_finite_values_and_gradients():
    boxes, weights = random_case(4, dtype=torch.float32)
    boxes.requires_grad_()
    weights = torch.zeros_like(weights).requires_grad_()
    average = weighted_box_average(boxes, weights)
    average.sum().backward()
    torch.testing.assert_close(average, boxes.mean(1))
    assert boxes.grad.isfinite().all() and weights.grad.isfinite().all()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_gradient(threshold):
    boxes, _ = random_case(5, num=2, cells=6)
    weights = torch.tensor([[0.1, 0.3, 0.6, 0.7, 0.8, 0.95], [0.1, 0.2, 0.3, 0.35, 0.4, 0.45]])
    inputs = boxes.requires_grad_(), weights.double().requires_grad_()
    assert gradcheck(lambda b, w: weighted_box_average(b, w, threshold), inputs)


def test_no_instances():
    boxes = torch.zeros(0, 49, 4, requires_grad=True)
    average = weighted_box_average(boxes, torch.zeros(0, 49))
    average.sum().backward()
    assert average.shape == (0, 4) and boxes.grad.shape == (0, 49, 4)


@pytest.mark.parametrize("shapes", [((3, 4), (3,)), ((3, 9, 5), (3, 9)), ((3, 9, 4), (3, 8))])
def test_wrong_shapes(shapes):
    with pytest.raises(ValueError, match=r"boxes must be Tensor\[K, P, 4\]"):
        weighted_box_average(*(torch.zeros(shape) for shape in shapes))
