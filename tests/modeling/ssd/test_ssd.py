from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import nms

from segroi.modeling.ssd.anchors import anchor_sides, anchors_per_cell, ssd_anchors
from segroi.modeling.ssd.coder import decode_boxes, encode_boxes
from segroi.modeling.ssd.detector import SSD
from segroi.modeling.ssd.loss import classification_loss, hard_examples, ssd_loss
from segroi.modeling.ssd.matching import first_survivors, match_anchors


def random_boxes(k, seed=0):
    corners = torch.rand(k, 4, generator=torch.Generator().manual_seed(seed))
    low, high = corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])
    return torch.cat([low, high + 0.01], dim=1)


def test_anchors_of_the_thesis():
    sizes = [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3), (2, 2)]
    anchors = ssd_anchors(sizes)
    assert anchors.shape == (8028, 4)
    assert anchors_per_cell(6) == [3, 6, 6, 6, 6, 6]
    half = 0.05  # the square anchor of scale 0.1 in the first cell
    centre = 0.5 / 40
    expected = [centre - half, centre - half, centre + half, centre + half]
    torch.testing.assert_close(anchors[0], torch.tensor(expected))
    height, width = anchor_sides(6)[0][1]
    assert width / height == pytest.approx(2)
    assert width * height == pytest.approx(0.2**2)
    scales = [math.sqrt(h * w) for h, w in (sides[0] for sides in anchor_sides(6)[1:])]
    assert scales == pytest.approx([0.35, 0.5, 0.65, 0.8, 0.95])
    assert anchor_sides(6)[-1][-1] == pytest.approx((math.sqrt(0.95), math.sqrt(0.95)))
    last = anchors[-6:].view(6, 2, 2).mean(dim=1)
    torch.testing.assert_close(last, torch.full((6, 2), 0.75))


def test_coder_inverts_and_scales():
    anchors, boxes = random_boxes(50), random_boxes(50, seed=1)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)
    anchor = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
    moved = torch.tensor([[0.05, 0.1, 0.55, 1.1]])
    torch.testing.assert_close(encode_boxes(moved, anchor), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    wild = decode_boxes(torch.full((1, 4), 1e9), anchor)
    assert wild.isfinite().all()


def test_matching():
    anchors = torch.tensor(
        [[0, 0, 4, 4], [0, 0, 4, 3.8], [10, 10, 12, 12], [50, 50, 51, 51.0]], dtype=torch.float32
    )
    boxes = torch.tensor([[0, 0, 4, 4], [11, 11, 13, 13.0]])
    assert match_anchors(anchors, boxes).tolist() == [0, 0, 1, -1]  # the second one by force
    assert match_anchors(anchors, boxes[:0]).tolist() == [-1] * 4
    twice = torch.tensor([[10, 10, 12, 12.5], [10, 10, 12, 12.2]])
    assert match_anchors(anchors, twice).tolist()[2] == 0  # of two forced objects the first


@pytest.mark.parametrize("count", [1, 5, 40, 1000])
def test_first_survivors_are_those_of_full_suppression(count):
    boxes, scores = random_boxes(400), torch.rand(400)
    expected = nms(boxes, scores, 0.5)[:count]
    assert torch.equal(first_survivors(boxes, scores, 0.5, count), expected)


def test_hard_examples_are_three_negatives_for_a_positive():
    boxes, loss = random_boxes(100), torch.rand(100)
    positive = torch.zeros(100, dtype=torch.bool)
    assert len(hard_examples(boxes, loss, positive)) == 0
    positive[[7, 50]] = True
    chosen = hard_examples(boxes, loss, positive)
    assert positive[chosen].sum() == 2
    assert len(chosen) == 8
    hardest = loss.masked_fill(positive, -1).topk(6).indices
    assert set(hardest.tolist()) == set(chosen[~positive[chosen]].tolist())


def test_loss_of_one_positive_by_hand():
    anchors = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]])
    box = torch.tensor([[0.04, 0.0, 0.44, 0.4]])
    offsets, logits = torch.zeros(1, 2, 4), torch.tensor([[[0.0, 1.0], [0.0, 2.0]]])
    losses = ssd_loss(offsets, logits, anchors, [box], [torch.tensor([1])])
    assert losses["loss_box"].item() == pytest.approx(0.5)  # offset 1 in x
    expected = F.cross_entropy(logits[0], torch.tensor([1, 0]), reduction="sum")
    assert losses["loss_cls"].item() == pytest.approx(expected.item())


def test_no_objects_give_a_zero_loss_with_gradients():
    offsets = torch.randn(2, 5, 4, requires_grad=True)
    logits = torch.randn(2, 5, 3, requires_grad=True)
    empty = [torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2
    losses = ssd_loss(offsets, logits, random_boxes(5), *empty)
    sum(losses.values()).backward()
    assert losses["loss_box"] == losses["loss_cls"] == 0
    assert offsets.grad.count_nonzero() == logits.grad.count_nonzero() == 0


def test_classification_losses():
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 2])
    softmax = classification_loss(logits, target, "softmax")
    torch.testing.assert_close(softmax, -logits.log_softmax(1)[torch.arange(6), target])
    sigmoid = classification_loss(logits, target, "sigmoid")
    signs = 1 - 2 * F.one_hot(target, 4).float()
    torch.testing.assert_close(sigmoid, F.softplus(signs * logits).sum(dim=1))


@pytest.mark.parametrize("classification", ["softmax", "sigmoid"])
def test_detections(classification):
    torch.manual_seed(0)
    model = SSD(3, 0.25, classification=classification, detections_per_image=20).eval()
    output = model(torch.randn(2, 3, 96, 64))
    assert output.features["conv13"].shape[-2:] == (3, 2)
    detections = model.detect(output)
    assert len(detections) == 2
    for found in detections:
        assert found["boxes"].shape == (20, 4)
        assert (found["boxes"] >= 0).all() and (found["boxes"] <= 1).all()
        assert (found["scores"].diff() <= 0).all()
        assert set(found["labels"].tolist()) <= {1, 2, 3}
    model.score_threshold = 1.1
    assert model.detect(output)[0]["boxes"].shape == (0, 4)
    with pytest.raises(ValueError, match="classification"):
        SSD(1, 0.25, classification="focal")
