from __future__ import annotations

import pytest
import torch

from segroi.modeling.heads.mask_iou_head import (
    MaskIoUHead,
    mask_area_ratios,
    mask_iou_loss,
    mask_iou_targets,
)


@pytest.mark.parametrize(
    ("variant", "kwargs", "expected"),
    [
        ("a", {}, 16_340_304),
        ("b", {}, 4_620_816),
        ("c", {}, 5_194_640),
        # The text of the paper prints 10.6M and 11.1M, Table 7 agrees with these.
        ("d", {}, 11_043_984),
        ("e", {}, 11_617_808),
        ("d", {"non_local_after": True}, 11_043_984 + 401_568),
    ],
)
def test_counts_of_the_paper(variant, kwargs, expected):
    head = MaskIoUHead(variant=variant, **kwargs)
    assert sum(p.numel() for p in head.parameters()) == expected


@pytest.mark.parametrize("variant", ["a", "b", "e_early"])
@pytest.mark.parametrize("rows", [0, 2])
def test_trains_also_without_rows(variant, rows):
    head = MaskIoUHead(8, 5, variant=variant, conv_dim=8, fc_dim=16)
    x = torch.randn(rows, 8, 14, 14, requires_grad=True)
    logits = torch.randn(rows, 28, 28, requires_grad=True)
    out = head(x, logits)
    assert out.shape == (rows, 5)
    mask_iou_loss(out[:, 0], torch.full((rows,), 0.5)).backward()
    assert all(p.grad is not None for p in head.parameters())
    assert bool(logits.grad.any()) == bool(rows)


def test_gradient_to_the_mask_can_be_cut():
    logits = torch.randn(2, 28, 28, requires_grad=True)
    head = MaskIoUHead(8, 5, conv_dim=8, detach_mask=True)
    head(torch.randn(2, 8, 14, 14), logits).sum().backward()
    assert logits.grad is None


def square(size, x0, y0, x1, y1):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_area_ratio_is_the_part_of_the_object_inside_the_box():
    masks = torch.stack([square(32, 4, 4, 12, 12), square(32, 0, 0, 0, 0)])
    cases = [
        ([4, 4, 12, 12], 0, 1.0),
        ([4, 4, 8, 12], 0, 0.5),
        ([8, 8, 40, 40], 0, 0.25),
        ([3.6, 4.4, 11.4, 12], 0, 7 / 8),
        ([20, 20, 30, 30], 0, 0.0),
        ([12, 12, 4, 4], 0, 0.0),
        ([-9, -9, -5, -5], 0, 0.0),
        ([0, 0, 9, 9], 1, 0.0),
    ]
    boxes, index, expected = (torch.tensor(values) for values in zip(*cases))
    torch.testing.assert_close(mask_area_ratios(masks, boxes.float(), index), expected)


@pytest.mark.parametrize("objects", [0, 2])
def test_no_boxes_have_no_area_ratios(objects):
    masks = torch.zeros(objects, 8, 8, dtype=torch.bool)
    assert mask_area_ratios(masks, torch.zeros(0, 4), torch.zeros(0).long()).shape == (0,)


def test_target_counts_the_object_outside_the_box():
    gt = square(28, 0, 0, 14, 28).float()
    whole = torch.where(gt > 0, 5.0, -5.0)
    half = torch.where(square(28, 0, 0, 14, 14), 5.0, -5.0)
    logits = torch.stack([whole, whole, half, -whole.abs()])
    ratios = torch.tensor([1.0, 0.5, 1.0, 1.0])
    targets = mask_iou_targets(logits, gt.expand(4, 28, 28), ratios)
    torch.testing.assert_close(targets, torch.tensor([1.0, 0.5, 0.5, 0.0]))


def test_target_binarises_probabilities_not_logits():
    gt = square(28, 0, 0, 28, 28).float()[None]
    logits = torch.full((1, 28, 28), 0.2)  # a probability of 0.55
    assert mask_iou_targets(logits, gt, torch.ones(1)).item() == 1
    assert mask_iou_targets(logits, gt, torch.ones(1), threshold=0.6).item() == 0


def test_loss_leaves_out_targets_of_zero():
    predicted = torch.tensor([0.5, 0.9, 0.0], requires_grad=True)
    loss = mask_iou_loss(predicted, torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(loss, torch.tensor(0.5 * (0.25 + 0.25) / 2))
    loss.backward()
    assert predicted.grad[1] == 0
    assert mask_iou_loss(predicted, torch.zeros(3)).item() == 0


def test_target_of_an_object_that_the_box_misses_is_zero_and_finite():
    targets = mask_iou_targets(torch.ones(1, 28, 28), torch.zeros(1, 28, 28), torch.zeros(1))
    assert targets.item() == 0
