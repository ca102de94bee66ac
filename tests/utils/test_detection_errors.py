"""Cases made by hand: every kind of error once, and what must not count as one."""

from __future__ import annotations

import numpy as np
import pytest

from segroi.utils.coco import coco_from
from segroi.utils.detection_errors import (
    BACKGROUND,
    CONFUSED,
    DUPLICATE,
    HIT,
    LOOSE,
    MISSED,
    best_threshold,
    confusion_matrix,
    count_kinds,
    mask_iou,
    match_detections,
)

CAT, DOG = 3, 40  # ids with a gap


def real(number, category, box, image=1, crowd=0):
    x, y, w, h = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [float(v) for v in box],
        "area": float(w * h),
        "iscrowd": crowd,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    }


def found(category, box, score, image=1, **more):
    box = [float(v) for v in box]
    return {"image_id": image, "category_id": category, "bbox": box, "score": score, **more}


def coco(*annotations):
    images = [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 200} for i in (1, 2)]
    categories = [{"id": DOG, "name": "dog"}, {"id": CAT, "name": "cat"}]
    return coco_from({"images": images, "annotations": list(annotations), "categories": categories})


def only(matches):
    return [(m.kind, m.real and m.real["id"], m.found and m.found["score"]) for m in matches]


def test_every_kind_once():
    truth = coco(
        real(1, CAT, (0, 0, 20, 20)),
        real(2, DOG, (50, 0, 20, 20)),
        real(3, CAT, (100, 0, 20, 20)),
        real(4, CAT, (150, 0, 20, 20)),
    )
    results = [
        found(CAT, (0, 0, 20, 20), 0.95),  # found
        found(CAT, (1, 0, 20, 20), 0.90),  # the same object again
        found(CAT, (50, 0, 20, 20), 0.85),  # a dog taken for a cat
        found(CAT, (112, 0, 20, 20), 0.80),  # 8 of 32 columns: IoU 0.25
        found(DOG, (0, 60, 20, 20), 0.75),  # nothing is there
        found(CAT, (150, 0, 20, 20), 0.30),  # below the threshold
    ]
    matches = match_detections(truth, results)
    assert only(matches) == [
        (HIT, 1, 0.95),
        (CONFUSED, 2, 0.85),
        (DUPLICATE, None, 0.90),
        (LOOSE, None, 0.80),
        (BACKGROUND, None, 0.75),
        (MISSED, 3, None),
        (MISSED, 4, None),
    ]
    assert [m.iou for m in matches[3:6]] == pytest.approx([0.25, 0.0, 0.25])
    assert count_kinds(matches)[MISSED] == 2 and sum(count_kinds(matches).values()) == 7
    # rows: cat, dog, background; columns: cat, dog, nothing
    assert confusion_matrix(truth, matches).tolist() == [[1, 0, 2], [1, 0, 0], [2, 1, 0]]


def test_own_category_comes_before_the_larger_overlap():
    truth = coco(real(1, CAT, (0, 0, 20, 20)), real(2, DOG, (2, 0, 20, 20)))
    results = [found(DOG, (0, 0, 20, 20), 0.9), found(CAT, (0, 0, 20, 20), 0.8)]
    assert only(match_detections(truth, results)) == [(HIT, 2, 0.9), (HIT, 1, 0.8)]


def test_higher_score_takes_the_object_whatever_the_order():
    truth = coco(real(1, CAT, (0, 0, 20, 20)))
    results = [found(CAT, (0, 0, 20, 20), 0.6), found(CAT, (4, 0, 20, 20), 0.9)]
    for order in (results, results[::-1]):
        assert only(match_detections(truth, order)) == [(HIT, 1, 0.9), (DUPLICATE, None, 0.6)]


def test_crowds_are_neither_missed_nor_false():
    truth = coco(real(1, CAT, (0, 0, 100, 100), crowd=1))
    results = [found(CAT, (10, 10, 5, 5), 0.9), found(DOG, (10, 10, 5, 5), 0.9)]
    assert only(match_detections(truth, results)) == [(BACKGROUND, None, 0.9)]  # the dog


def test_images_are_kept_apart_and_may_be_empty():
    truth = coco(real(1, CAT, (0, 0, 20, 20), image=2))
    results = [found(CAT, (0, 0, 20, 20), 0.9, image=1)]
    matches = match_detections(truth, results)
    assert [(m.kind, m.image_id) for m in matches] == [(BACKGROUND, 1), (MISSED, 2)]
    assert match_detections(coco(), []) == []
    assert (confusion_matrix(coco(), []) == np.zeros((3, 3))).all()


def test_threshold_and_iou_are_what_they_say():
    truth = coco(real(1, CAT, (0, 0, 20, 20)))
    results = [found(CAT, (5, 0, 20, 20), 0.5)]  # 15 of 25 columns: IoU 0.6
    assert only(match_detections(truth, results)) == [(HIT, 1, 0.5)]
    assert only(match_detections(truth, results, iou=0.7)) == [
        (LOOSE, None, 0.5),
        (MISSED, 1, None),
    ]
    assert only(match_detections(truth, results, threshold=0.51)) == [(MISSED, 1, None)]


def test_best_threshold_balances_precision_and_recall():
    truth = coco(*(real(n, CAT, (30 * n, 0, 20, 20)) for n in (0, 1, 2)))
    hits = [found(CAT, (30 * n, 0, 20, 20), score) for n, score in enumerate((0.4, 0.3, 0.1))]
    wrong = [found(DOG, (0, 60, 9, 9), score) for score in (0.9, 0.2, 0.19, 0.18)]
    # F1 down to 0.9: 0, 0.4: 2/5, 0.3: 4/6, 0.2 ... 0.18: 4/7 to 4/9, 0.1: 6/10
    assert best_threshold(truth, [*wrong, *hits]) == 0.3
    assert best_threshold(truth, [*wrong[:2], *hits]) == 0.1  # 6/8 in the end
    assert best_threshold(truth, wrong) == best_threshold(coco(), []) == 0.5


def test_iou_of_masks():
    truth = coco(real(1, CAT, (0, 0, 20, 20)))
    half = truth.annToRLE(real(9, CAT, (0, 0, 20, 10)))
    (match,) = match_detections(truth, [found(CAT, (0, 0, 20, 20), 0.9, segmentation=half)])
    assert match.iou == 1.0 and mask_iou(truth, match) == pytest.approx(0.5)
