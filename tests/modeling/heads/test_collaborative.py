from __future__ import annotations

import pytest
import torch

from segroi.layers.dense_boxes import encode_dense_boxes
from segroi.modeling.heads.collaborative import (
    CollaborativeHead,
    CollaborativeOutput,
    average_boxes,
    collaborative_losses,
    foreground_confidence,
    select_class,
)

SMALL = {"conv_dim": 16, "num_convs": 2, "norm_groups": 4, "num_classes": 3}
LOGIT = 8.0


def count(module):
    return sum(p.numel() for p in module.parameters())


def perfect_case(masks_at=((0, 28, 0, 28), (8, 20, 4, 28))):
    """RoIs, their targets, and the output of a head that knows the answer."""
    rois = torch.tensor([[10.0, 20, 66, 76], [0, 0, 40, 80]])
    gt_boxes = torch.tensor([[5.0, 18, 70, 80], [6, 22, 40, 58]])
    classes = torch.tensor([2, 0])
    masks = torch.zeros(2, 28, 28)
    for mask, (y0, y1, x0, x1) in zip(masks, masks_at):
        mask[y0:y1, x0:x1] = 1
    logits = torch.full((2, 4, 28, 28), -LOGIT)
    logits[torch.arange(2), classes] = (2 * masks - 1) * LOGIT
    output = CollaborativeOutput(encode_dense_boxes(gt_boxes, rois, 7), logits)
    return output, rois, gt_boxes, classes, masks


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, 29_272_917),
        ({"conv_dim": 256, "norm_groups": 32}, 6_624_597),
        ({"num_convs": 8}, 29_272_917 - 2_985_984 - 1_152),
        ({"background_channel": False}, 29_272_917 - 2_305),
    ],
)
def test_parameter_counts(kwargs, expected):
    with torch.device("meta"):
        assert count(CollaborativeHead(**kwargs)) == expected


@pytest.mark.parametrize("num_rois", [0, 1, 3])
def test_shapes(num_rois):
    head = CollaborativeHead(8, **SMALL)
    output = head(torch.randn(num_rois, 8, 14, 14))
    assert output.offsets.shape == (num_rois, 4, 7, 7)
    assert output.mask_logits.shape == (num_rois, 4, 28, 28)
    assert (output.offsets >= 0).all()


def test_offset_bias_starts_from_boxes_of_the_rois_size():
    head = CollaborativeHead(8, **SMALL, offset_bias=0.5)
    output, rois = head(torch.zeros(2, 8, 14, 14)), torch.tensor([[0.0, 0, 7, 7], [10, 10, 30, 50]])
    average, dense, _ = average_boxes(output, rois, torch.tensor([0, 1]), collaborative=False)
    torch.testing.assert_close(average, rois)
    torch.testing.assert_close(
        dense[..., 2:] - dense[..., :2], (rois[:, 2:] - rois[:, :2])[:, None].expand(2, 49, 2)
    )


def test_confidence_is_the_mean_probability_of_each_cell():
    logits = torch.randn(2, 28, 28)
    blocks = logits.sigmoid().unfold(1, 4, 4).unfold(2, 4, 4).mean((-2, -1))
    torch.testing.assert_close(foreground_confidence(logits, 7), blocks.flatten(1))


def test_select_class():
    logits = torch.randn(3, 4, 2, 2)
    chosen = select_class(logits, torch.tensor([3, 0, 1]))
    torch.testing.assert_close(chosen, torch.stack((logits[0, 3], logits[1, 0], logits[2, 1])))


def test_average_of_perfect_cells_is_the_target():
    output, rois, gt_boxes, classes, _ = perfect_case()
    average, dense, confidence = average_boxes(output, rois, classes)
    torch.testing.assert_close(average, gt_boxes)
    assert dense.shape == (2, 49, 4) and confidence.shape == (2, 49)


def test_background_cells_do_not_disturb_the_average():
    output, rois, gt_boxes, classes, masks = perfect_case()
    background = masks[:, 2::4, 2::4] == 0
    offsets = output.offsets + 3.0 * background[:, None]
    output = output._replace(offsets=offsets)
    torch.testing.assert_close(average_boxes(output, rois, classes)[0], gt_boxes)
    uniform = average_boxes(output, rois, classes, collaborative=False)[0]
    assert not torch.allclose(uniform[1], gt_boxes[1], atol=1.0)


def test_losses_of_a_perfect_output_vanish():
    losses = collaborative_losses(*perfect_case(), average_weight=1.0)
    assert set(losses) == {"loss_offset", "loss_mask", "loss_average"}
    for loss in losses.values():
        assert 0 <= loss < 1e-3


def test_cell_loss_counts_foreground_cells_only_and_divides_by_all():
    output, rois, gt_boxes, classes, masks = perfect_case()
    wrong = output._replace(offsets=torch.full_like(output.offsets, 0.5))
    losses = collaborative_losses(wrong, rois, gt_boxes, classes, masks)
    dense = average_boxes(wrong, rois, classes)[1]
    expected = 0.0
    for k in range(2):
        for cell in range(49):
            if masks[k, 4 * (cell // 7) + 2, 4 * (cell % 7) + 2] > 0.5:
                iou = _iou(dense[k, cell].tolist(), gt_boxes[k].tolist())
                expected -= torch.tensor(iou + 0.1 * (iou <= 0.1)).log().item()
    assert losses["loss_offset"].item() == pytest.approx(2.0 * expected / 98, rel=1e-4)


def _iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


def test_empty_masks_train_no_cell():
    output, rois, gt_boxes, classes, masks = perfect_case()
    assert collaborative_losses(output, rois, gt_boxes, classes, masks * 0)["loss_offset"] == 0


def test_averaged_box_loss_reaches_the_mask_branch():
    output, rois, gt_boxes, classes, masks = perfect_case()
    logits = torch.randn(2, 4, 28, 28, requires_grad=True)
    offsets = (output.offsets + torch.rand_like(output.offsets)).requires_grad_()
    case = CollaborativeOutput(offsets, logits), rois, gt_boxes, classes, masks
    losses = collaborative_losses(*case, average_weight=1.0, threshold=0.2)
    from_cells = torch.autograd.grad(
        losses["loss_offset"], logits, allow_unused=True, retain_graph=True
    )
    assert from_cells == (None,)
    (from_average,) = torch.autograd.grad(losses["loss_average"], logits)
    assert from_average.abs().sum() > 0


@pytest.mark.parametrize("average_weight", [0.0, 1.0])
@pytest.mark.parametrize("num_rois", [0, 2])
def test_every_parameter_has_a_gradient(num_rois, average_weight):
    head = CollaborativeHead(8, **SMALL)
    _, rois, gt_boxes, classes, masks = (value[:num_rois] for value in perfect_case())
    output = head(torch.randn(num_rois, 8, 14, 14))
    losses = collaborative_losses(
        output, rois, gt_boxes, classes, masks, average_weight=average_weight
    )
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert num_rois or not parameter.grad.any(), name


def test_learns_one_instance():
    torch.manual_seed(0)
    head = CollaborativeHead(8, **SMALL, offset_bias=0.5)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    features = torch.randn(2, 8, 14, 14)
    _, rois, gt_boxes, classes, masks = perfect_case()
    for _ in range(120):
        losses = collaborative_losses(head(features), rois, gt_boxes, classes, masks)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    average = average_boxes(head(features), rois, classes)[0]
    assert losses["loss_mask"] < 0.1
    # 0.88 to 0.99 were seen with four seeds and one or two threads
    assert all(_iou(a, b) > 0.8 for a, b in zip(average.tolist(), gt_boxes.tolist()))
