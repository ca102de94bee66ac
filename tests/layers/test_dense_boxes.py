from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from segroi.layers.dense_boxes import (
    decode_dense_boxes,
    encode_dense_boxes,
    grid_points,
    jitter_boxes,
    lifted_iou_loss,
)


def random_boxes(num, seed=0, dtype=torch.float64):
    corners = torch.rand(num, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    corners = corners.sort(1).values * 200
    corners[:, 1] += 5
    return corners.flatten(1)


def test_grid_points_are_cell_centres_in_row_major_order():
    points = grid_points(torch.tensor([[10.0, 20.0, 24.0, 34.0]]), 7)
    assert points.shape == (1, 49, 2)
    assert points[0, 0].tolist() == [11, 21]
    assert points[0, 1].tolist() == [13, 21]
    assert points[0, 7].tolist() == [11, 23]


@pytest.mark.parametrize("grid_size", [1, 7, 14])
def test_round_trip_gives_the_target_in_every_cell(grid_size):
    rois, targets = random_boxes(20), random_boxes(20, seed=1)
    distances = encode_dense_boxes(targets, rois, grid_size)
    assert distances.shape == (20, 4, grid_size, grid_size)
    decoded = decode_dense_boxes(distances, rois)
    torch.testing.assert_close(decoded, targets[:, None].expand_as(decoded))


def test_order_is_left_top_right_bottom():
    roi = torch.tensor([[0.0, 0.0, 70.0, 70.0]])
    distances = encode_dense_boxes(torch.tensor([[5.0, 0.0, 65.0, 40.0]]), roi, 7)
    assert distances[0, :, 0, 0].tolist() == pytest.approx([0, 5 / 70, 60 / 70, 35 / 70])


def test_distances_are_positive_where_the_target_contains_the_roi():
    rois = random_boxes(10)
    margin = rois.new_tensor([-1, -1, 1, 1])
    assert (encode_dense_boxes(rois + margin, rois, 7) > 0).all()


def test_iou_loss_values():
    target = torch.tensor([0.0, 0.0, 10.0, 10.0])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10], [0, 0, 1, 5], [20, 20, 30, 30]])
    iou = torch.tensor([1.0, 0.5, 0.05 + 0.1, 1e-6 + 0.1])
    torch.testing.assert_close(lifted_iou_loss(boxes, target.expand(4, 4)), -iou.log())


def test_iou_loss_of_boxes_without_area_is_finite():
    boxes = torch.tensor([[3.0, 3, 3, 3], [9, 9, 2, 2]], requires_grad=True)
    loss = lifted_iou_loss(boxes, torch.zeros(2, 4))
    loss.sum().backward()
    assert loss.isfinite().all() and boxes.grad.isfinite().all()


def test_iou_loss_gradient():
    boxes = random_boxes(8).requires_grad_()
    targets = boxes.detach() * 0.9 + 3
    assert gradcheck(lambda b: lifted_iou_loss(b, targets), boxes, eps=1e-4)


@pytest.mark.parametrize("ratio", [0.0, 0.15, 0.9])
def test_jitter_stays_in_range_and_inside_the_image(ratio):
    boxes = random_boxes(500, dtype=torch.float32)
    moved = jitter_boxes(boxes, ratio, (150, 180))
    limit = torch.tensor([180.0, 150, 180, 150])
    inside = (boxes <= limit).all(1)
    assert ((moved >= 0) & (moved <= limit))[inside].all()
    assert (moved[:, 2:] > moved[:, :2]).all()
    shift = (moved - boxes).view(-1, 2, 2).abs().amax(1)
    assert (shift[inside] <= 1.5 * ratio * (boxes[:, 2:] - boxes[:, :2])[inside] + 1e-3).all()


def test_jitter_without_boxes():
    assert jitter_boxes(torch.zeros(0, 4), 0.15, (10, 10)).shape == (0, 4)
