"""Scores of their own for masks change mask AP and nothing else."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from pycocotools import mask as rle_codec

from segroi.d2.data import register_coco_json
from segroi.d2.evaluation import MaskScoreCOCOEvaluator


@pytest.fixture
def dataset(digits):
    name = register_coco_json(str(digits / "val.json"), str(digits / "images"))
    return name, DatasetCatalog.get(name)


def _predict(record, mask_scores=None):
    """The truth once, and once more with empty masks, which only a mask score can rank last."""
    objects = record["annotations"]
    boxes = torch.tensor([a["bbox"] for a in objects])
    boxes[:, 2:] += boxes[:, :2]
    masks = np.stack([rle_codec.decode(a["segmentation"]) for a in objects]).astype(bool)
    n = len(objects)
    found = Instances((record["height"], record["width"]))
    found.pred_boxes = Boxes(torch.cat([boxes, boxes]))
    found.scores = torch.cat([torch.full((n,), 0.5), torch.full((n,), 0.9)])
    found.pred_classes = torch.tensor([a["category_id"] for a in objects] * 2)
    found.pred_masks = torch.from_numpy(np.concatenate([masks, np.zeros_like(masks)]))
    if mask_scores is not None:
        found.mask_scores = torch.tensor(mask_scores).repeat_interleave(n)
    return found


def _evaluate(cls, dataset, mask_scores=None, tasks=None):
    name, records = dataset
    evaluator = cls(name, tasks=tasks, distributed=False)
    evaluator.reset()
    for record in records:
        evaluator.process([record], [{"instances": _predict(record, mask_scores)}])
    return evaluator.evaluate()


def test_without_mask_scores_it_is_the_evaluator_of_detectron2(dataset):
    ours, theirs = (_evaluate(c, dataset) for c in (MaskScoreCOCOEvaluator, COCOEvaluator))
    assert set(ours) == {"bbox", "segm"}
    for task in ours:
        np.testing.assert_equal(ours[task], theirs[task])


def test_mask_scores_rank_masks_only(dataset):
    plain = _evaluate(MaskScoreCOCOEvaluator, dataset)
    scored = _evaluate(MaskScoreCOCOEvaluator, dataset, mask_scores=[0.9, 0.1])
    np.testing.assert_equal(scored["bbox"], plain["bbox"])
    assert scored["segm"]["AP"] > 99 > plain["segm"]["AP"] + 10


def test_only_the_asked_tasks_are_evaluated(dataset):
    scored = _evaluate(MaskScoreCOCOEvaluator, dataset, [0.9, 0.1], tasks=("segm",))
    assert list(scored) == ["segm"]
    assert scored["segm"]["AP"] > 99
