from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as rle_codec

from segroi.utils.coco import (
    METRICS,
    METRICS_AT_HALF,
    coco_from,
    coco_metrics,
    coco_scores,
    load_coco,
)
from segroi.utils.suggest import UsageError


def square(image_id, x, y, side, category=7, number=1):
    mask = np.zeros((64, 64), np.uint8)
    mask[y : y + side, x : x + side] = 1
    code = rle_codec.encode(np.asfortranarray(mask))
    code["counts"] = code["counts"].decode()
    box = [float(x), float(y), float(side), float(side)]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": box,
        "area": float(side * side),
        "iscrowd": 0,
        "segmentation": code,
    }


@pytest.fixture
def truth():
    images = [{"id": i, "file_name": f"{i}.png", "height": 64, "width": 64} for i in (3, 9)]
    annotations = [square(3, 5, 5, 20, number=1), square(9, 30, 8, 30, number=2)]
    return coco_from(
        {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "square"}],
        }
    )


def as_results(annotations, score=0.9, **changes):
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{k: a[k] for k in keys}, "score": score, **changes} for a in annotations]


def test_truth_as_detections_gives_one(truth):
    metrics = coco_metrics(truth, as_results(truth.dataset["annotations"]))
    assert list(metrics) == ["box", "mask"] and tuple(metrics["mask"]) == METRICS
    for kind in metrics:
        assert metrics[kind]["AP"] == metrics[kind]["AR100"] == pytest.approx(1.0)
        assert metrics[kind]["APl"] == -1.0, "no large object in the truth"


def test_boxes_and_masks_are_judged_apart(truth):
    results = as_results(truth.dataset["annotations"])
    for result in results:
        result["bbox"] = [0.0, 0.0, 2.0, 2.0]
    metrics = coco_metrics(truth, results)
    assert metrics["mask"]["AP"] == pytest.approx(1.0) and metrics["box"]["AP"] == 0.0


def test_half_found_gives_half(truth):
    results = as_results(truth.dataset["annotations"][:1])
    assert coco_metrics(truth, results)["box"]["AP"] == pytest.approx(0.505, abs=0.01)


def test_no_detections_gives_zero(truth):
    metrics = coco_metrics(truth, [])
    assert metrics["box"]["AP"] == metrics["mask"]["AP"] == 0.0


def test_scores_at_half_and_of_each_category(truth):
    truth.dataset["categories"].append({"id": 8, "name": "circle"})
    truth = coco_from(truth.dataset)
    small, medium = truth.dataset["annotations"]  # COCO's small ends at 32 px
    medium.update(square(9, 20, 8, 40, number=2))
    shifted = as_results([square(9, 24, 8, 40)])  # 36 of 44 columns: IoU 0.82
    scores = coco_scores(truth, [*as_results([small]), *shifted], ["mask"])["mask"]
    assert tuple(scores.half) == METRICS_AT_HALF
    for name in ("AP50s", "AP50m", "AR50@1", "AR50s"):
        assert scores.half[name] == pytest.approx(1.0), name
    assert scores.half["AP50l"] == scores.half["AR50l"] == -1.0, "no large object"
    assert scores.half["AP50"] == pytest.approx(scores.all["AP50"])
    assert scores.all["AR100"] == scores.classes["square"]["AR100"] == pytest.approx(0.85)
    assert scores.classes["square"]["AP50"] == pytest.approx(1.0)
    assert scores.classes["circle"] == {"AP": -1.0, "AP50": -1.0, "AR100": -1.0}


def test_mask_scores_rank_the_masks_alone(truth):
    right = as_results(truth.dataset["annotations"], score=0.5, mask_score=0.9)
    wrong = as_results([square(3, 40, 40, 9), square(9, 0, 0, 9)], score=0.8, mask_score=0.1)
    scores = coco_metrics(truth, [*wrong, *right])
    assert scores["mask"]["AP"] == pytest.approx(1.0)
    assert scores["box"]["AP"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "is no JSON"),
        ('{"images": []}', "is not COCO format: it has no"),
        ("[]", "is not COCO format"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no images"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_coco(path)


def test_byte_order_mark_is_read(tmp_path, truth):
    path = tmp_path / "bom.json"
    path.write_text(json.dumps(truth.dataset), encoding="utf-8-sig")
    assert sorted(load_coco(path).imgs) == [3, 9]
