from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from segroi.modeling.recursion.sampling import sample_boxes
from segroi.modeling.recursion.schedule import LoopSchedule, average_class_scores
from segroi.modeling.recursion.statistics import IoUHistogram, missing_iou_fraction

GT = torch.tensor([[10.0, 10, 50, 50], [60, 60, 100, 90]])
CLASSES = torch.tensor([3, 1])


@pytest.mark.parametrize(
    ("alternation", "stages"),
    [
        ("a", (0,)),
        ("ab", (0, 1)),
        ("aab", (0, 0, 1)),
        ("abb", (0, 1, 1)),
        ("aba", (0, 1, 0)),
        ("abc", (0, 1, 2)),
        ("aabb", (0, 0, 1, 1)),
        ("abab", (0, 1, 0, 1)),
        ("aabbb", (0, 0, 1, 1, 1)),
    ],
)
def test_alternation_strings(alternation, stages):
    schedule = LoopSchedule.from_alternation(alternation)
    assert schedule.stages == stages
    assert schedule.num_heads == len(set(alternation))
    assert list(schedule.iou_thresholds) == sorted(schedule.iou_thresholds)


def test_thresholds_and_weights_of_the_paper():
    three = LoopSchedule.from_alternation("aaa")
    assert three.iou_thresholds == (0.5, 0.6, 0.7)
    assert three.loss_weights == (1, 0.75, 0.5)
    htc = LoopSchedule.from_alternation("abc", loss_weights=(1, 0.5, 0.25))
    assert (htc.loss_weights, htc.iou_thresholds) == ((1, 0.5, 0.25), (0.5, 0.6, 0.7))


@pytest.mark.parametrize(
    ("loops", "stages"),
    [(None, (0, 0, 1)), (0, (0, 0, 1)), (1, (0,)), (2, (0, 0)), (5, (0, 0, 1, 1, 1))],
)
def test_evaluation_loops_cut_or_continue_with_the_last_head(loops, stages):
    assert LoopSchedule.from_alternation("aab").inference_stages(loops) == stages


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: LoopSchedule.from_alternation(""), "defaults for 0 loops"),
        (lambda: LoopSchedule.from_alternation("aaaaaa"), "defaults for 6 loops"),
        (lambda: LoopSchedule.from_alternation("aac"), r"\(0, 0, 2\)"),
        (lambda: LoopSchedule.from_alternation("aAb"), r"\(0, -32, 1\)"),
        (lambda: LoopSchedule((0, 0), (0.5,), (1.0,)), r"\(2, 1, 1\)"),
        (lambda: average_class_scores([torch.zeros(1, 2)], "both"), "'both'"),
    ],
)
def test_wrong_settings_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_logits_are_averaged_before_the_softmax():
    logits = [torch.tensor([[4.0, 0.0]]), torch.tensor([[-1.0, 0.0]])]
    by_logits = torch.tensor([[1.5, 0.0]]).softmax(-1)
    by_scores = (logits[0].softmax(-1) + logits[1].softmax(-1)) / 2
    torch.testing.assert_close(average_class_scores(logits), by_logits)
    torch.testing.assert_close(average_class_scores(logits, "scores"), by_scores)


def proposals(count=400):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 60
    return torch.cat((corner, corner + 10 + torch.rand(count, 2, generator=generator) * 40), dim=1)


def sample(boxes=None, gt=GT, classes=CLASSES, **kwargs):
    boxes = proposals() if boxes is None else boxes
    kwargs = {"iou_threshold": 0.5, "num_classes": 7, "num_samples": 64, **kwargs}
    return sample_boxes(boxes, gt, classes, **kwargs)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_labels_follow_the_best_overlap(threshold):
    drawn = sample(iou_threshold=threshold)
    iou, index = box_iou(drawn.boxes, GT).max(dim=1)
    positive = iou >= threshold
    torch.testing.assert_close(drawn.iou, iou)
    assert torch.equal(drawn.gt_index, index)
    assert torch.equal(drawn.classes, torch.where(positive, CLASSES[index], 7))
    assert 0 < positive.sum() <= 16
    assert positive[: positive.sum()].all()


def test_number_of_samples_is_filled_with_negatives():
    assert len(sample().boxes) == 64
    assert len(sample(boxes=proposals(5)).boxes) == 7


def test_boxes_from_the_ground_truth_are_marked():
    drawn = sample(boxes=proposals(5), positive_fraction=1.0)
    assert drawn.from_gt.sum() == 2
    assert {tuple(box) for box in drawn.boxes[drawn.from_gt].tolist()} == {
        tuple(box) for box in GT.tolist()
    }


def test_draws_differ_and_obey_the_seed():
    torch.manual_seed(0)
    first, second = sample(), sample()
    torch.manual_seed(0)
    again = sample()
    assert not torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.boxes, again.boxes)


def test_image_without_objects_gives_background_only():
    drawn = sample(gt=GT[:0], classes=CLASSES[:0])
    assert drawn.classes.eq(7).all() and not drawn.from_gt.any() and not drawn.iou.any()


def test_no_proposals_leave_the_ground_truth():
    drawn = sample(boxes=GT[:0])
    assert drawn.from_gt.all() and len(drawn.boxes) == 2
    empty = sample(boxes=GT[:0], gt=GT[:0], classes=CLASSES[:0])
    assert len(empty.boxes) == 0


def test_histogram_counts_every_sample_in_its_bin():
    histogram = IoUHistogram(num_loops=2)
    histogram.update(0, torch.tensor([0.0, 0.04, 0.5, 1.0]))
    histogram.update(1, torch.tensor([0.97, 0.99]))
    assert histogram.counts[0].nonzero()[:, 0].tolist() == [0, 10, 19]
    torch.testing.assert_close(
        histogram.fractions()[:, [0, 10, 19]], torch.tensor([[0.5, 0.25, 0.25], [0, 0, 1]])
    )


def test_fraction_of_objects_without_an_anchor_in_a_bin():
    missing = missing_iou_fraction(GT, GT[:1], num_bins=10)
    assert missing[9] == 0.5  # the second object has no anchor that fits
    assert missing[0] == 0.5
    assert missing[5] == 1
