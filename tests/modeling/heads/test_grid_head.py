from __future__ import annotations

import pytest
import torch

from segroi.modeling.heads.grid_head import (
    GridHead,
    PointFusion,
    decode_grid,
    grid_loss,
    grid_targets,
)

ROIS = torch.tensor([[10.0, 20, 66, 76], [0, 0, 28, 112], [5, 5, 61, 33]])


def small():
    torch.manual_seed(0)
    return GridHead(6, point_channels=4, num_convs=2, norm_groups=9)


def test_point_fusion_equals_a_loop_over_neighbours():
    torch.manual_seed(0)
    fusion = PointFusion(3, 4)
    points, senders = torch.randn(2, 2, 9, 4, 7, 7)
    expected = points.clone()
    for message, (source, target) in enumerate(
        (s, t) for s in range(9) for t in range(9) if abs(s // 3 - t // 3) + abs(s % 3 - t % 3) == 1
    ):
        part = slice(4 * message, 4 * message + 4)
        conv = torch.nn.functional.conv2d
        x = conv(
            senders[:, source],
            fusion.depthwise.weight[part],
            fusion.depthwise.bias[part],
            padding=2,
            groups=4,
        )
        expected[:, target] += conv(x, fusion.pointwise.weight[part], fusion.pointwise.bias[part])
    assert len(fusion.source) == 24
    torch.testing.assert_close(fusion(points, senders), expected)


@pytest.mark.parametrize("rows", [0, 3])
def test_trains_also_without_rows(rows):
    head = small()
    x = torch.randn(rows, 6, 14, 14, requires_grad=True)
    fused, unfused = head(x)
    assert fused.shape == unfused.shape == (rows, 9, 28, 28)
    grid_loss(fused, unfused, grid_targets(ROIS[:rows], ROIS[:rows])).backward()
    assert all(p.grad is not None for p in head.parameters())
    assert bool(x.grad.any()) == bool(rows)


def test_starts_sure_that_nothing_is_there():
    fused, _ = small()(torch.randn(2, 6, 14, 14))
    torch.testing.assert_close(fused.sigmoid(), torch.full_like(fused, 0.01), atol=2e-3, rtol=0)


def test_targets_of_a_perfect_roi_are_crosses_in_the_middle_of_every_window():
    targets = grid_targets(ROIS[:1], ROIS[:1])
    cells = targets[0].nonzero()
    assert targets.sum(dim=(2, 3)).eq(5).all()
    assert cells[:, 1:].float().mean(dim=0).tolist() == [14, 14]


@pytest.mark.parametrize("shift", [0.0, 6.0, -9.0])
@pytest.mark.parametrize("grid_size", [2, 3, 4])
def test_decoding_the_targets_gives_the_ground_truth_within_half_a_cell(grid_size, shift):
    gt = ROIS + torch.tensor([shift, -shift, shift, shift])
    # A peak in the middle of each cross, so that the maximum is the cell of the point.
    logits = torch.nn.functional.avg_pool2d(
        grid_targets(ROIS, gt, grid_size=grid_size), 3, 1, 1, count_include_pad=True
    )
    half_cell = (ROIS[:, 2:] - ROIS[:, :2]).repeat(1, 2) / 56
    assert ((decode_grid(ROIS, logits) - gt).abs() <= half_cell + 1e-4).all()


def test_a_point_outside_its_window_has_no_target():
    gt = ROIS[:1] + 200
    assert not grid_targets(ROIS[:1], gt).any()


def test_sides_are_means_weighted_by_confidence():
    logits = torch.full((1, 9, 28, 28), -20.0)
    logits[0, :, 14, 14] = 0.0
    logits[0, 0, 14, 14], logits[0, 0, 14, 18] = -20.0, 2.0
    weights = torch.tensor([2.0, 0.0, 0.0]).sigmoid()
    cells = torch.tensor([18.5, 14.5, 14.5])
    x0 = 10 - 28 + (cells * weights).sum() / weights.sum() / 56 * 112
    assert decode_grid(ROIS[:1], logits)[0, 0].item() == pytest.approx(x0.item(), abs=1e-3)


def test_no_rois_decode_to_nothing():
    assert decode_grid(ROIS[:0], torch.zeros(0, 9, 28, 28)).shape == (0, 4)
