"""SSD-ISB's branches as the mask head of a two-stage model; masks in regions of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_mask_head
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from segroi.d2 import load_config
from segroi.d2.mask_targets import region_targets
from segroi.d2.region_masks import RegionMasks
from segroi.d2.roi_heads import InstanceBranchMaskHead
from segroi.modeling.ssd.branches import InstanceBranches

CHANNELS, SIZE = 8, 128
STRIDES = {"p3": 8, "p4": 16, "p5": 32}


def features():
    torch.manual_seed(0)
    return {
        name: torch.randn(2, CHANNELS, SIZE // s, SIZE // s, requires_grad=True)
        for name, s in STRIDES.items()
    }


def head(*options):
    opts = ["MODEL.ROI_MASK_HEAD.NAME", "InstanceBranchMaskHead"]
    opts += ["MODEL.ROI_MASK_HEAD.POOLER_TYPE", "", "MODEL.ROI_HEADS.NUM_CLASSES", "3"]
    opts += ["MODEL.MASK_BRANCHES.SHAPES", "((2, 2), (2, 1), (1, 1))", *options]
    shapes = {name: ShapeSpec(channels=CHANNELS, stride=s) for name, s in STRIDES.items()}
    torch.manual_seed(0)
    return build_mask_head(load_config("", opts), shapes)


BOXES = [[5.0, 6.0, 30.0, 50.0], [40.0, 10.0, 120.0, 90.0], [70.0, 70.0, 75.0, 80.0]]


def training_samples():
    masks = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    for mask, box in zip(masks, np.array(BOXES, int)):
        mask[box[1] : box[3], box[0] : box[2]] = True
    full = Instances((SIZE, SIZE))
    full.proposal_boxes, full.gt_classes = Boxes(BOXES), torch.tensor([0, 2, 1])
    full.gt_masks = BitMasks(masks)
    empty = Instances((SIZE, SIZE))
    empty.proposal_boxes, empty.gt_classes = Boxes([]), torch.zeros(0).long()
    return [empty, full]


def detections(boxes=BOXES, size=(SIZE, SIZE)):
    found = Instances(size)
    found.pred_boxes = Boxes(boxes)
    found.pred_classes = torch.arange(len(boxes)) % 3
    found.scores = torch.linspace(1, 0.5, len(boxes))
    return found


@pytest.mark.parametrize("stopped", [False, True])
def test_trains(stopped):
    maps = features()
    module = head("MODEL.MASK_BRANCHES.STOP_GRADIENT", str(stopped)).train()
    losses = module(maps, training_samples())
    assert set(losses) == {"loss_mask"}
    losses["loss_mask"].backward()
    assert losses["loss_mask"].item() == pytest.approx(0.69, abs=0.1)
    assert all(p.grad is not None for p in module.parameters())
    reached = [m.grad is not None and m.grad.count_nonzero() > 0 for m in maps.values()]
    assert all(reached) is not stopped and any(reached) is not stopped


def test_nothing_to_learn_from_has_gradients():
    module = head().train()
    samples = training_samples()
    losses = module(features(), [samples[0], samples[0]])
    losses["loss_mask"].backward()
    assert losses["loss_mask"] == 0
    assert all(p.grad is not None for p in module.parameters())


def test_learns_the_masks():
    maps = {name: m.detach() for name, m in features().items()}
    module = head().train()
    samples = training_samples()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(60):
        loss = module(maps, samples)["loss_mask"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = detections()
    found.pred_classes = samples[1].gt_classes
    _, result = module.eval()(maps, [detections([]), found])
    masks = detector_postprocess(result, SIZE, SIZE).pred_masks
    truth = samples[1].gt_masks.tensor
    overlap = (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2))
    # masks are learnt in cells of 8 px; filling the regions would give 0.54 and 0.69
    assert overlap[0] > 0.65 and overlap[1] > 0.8


def test_masks_are_pasted_into_their_regions():
    module = head().eval()
    for branch in module.branches.branches:
        torch.nn.init.constant_(branch.score.bias, 1e3)
    found = detections([BOXES[0], BOXES[1]])
    (_, result) = module({n: m.detach() for n, m in features().items()}, [detections([]), found])
    large = detector_postprocess(result, 2 * SIZE, SIZE)
    assert large.pred_masks.shape == (2, 2 * SIZE, SIZE)
    expected = torch.zeros_like(large.pred_masks)
    expected[0, : 2 * 64, :32] = True  # the box of 5..30 x 6..50 grown to whole cells of 32 px
    expected[1, : 2 * 96, 32:] = True
    assert torch.equal(large.pred_masks, expected)
    assert large.pred_boxes.tensor[0].tolist() == [5, 12, 30, 100]


def test_the_image_may_be_padded():
    module = head().eval()
    for branch in module.branches.branches:
        torch.nn.init.constant_(branch.score.bias, 1e3)
    maps = {n: m.detach()[:1] for n, m in features().items()}
    (result,) = module(maps, [detections([[5.0, 6, 30, 50]], size=(100, 120))])
    (mask,) = detector_postprocess(result, 100, 120).pred_masks
    assert mask[:64, :32].all() and mask.sum() == 64 * 32


def test_each_class_has_its_mask_and_detections_beyond_the_budget_are_left_out():
    module = head().eval()
    maps = {n: m.detach()[:1] for n, m in features().items()}
    found = detections([BOXES[0]] * 34)
    (result,) = module(maps, [found])
    assert len(result) == 30
    first, second, third, fourth = result.pred_masks.logits[:4]
    assert torch.equal(first, fourth) and not torch.equal(first, second)
    agnostic = head("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", "True").eval()
    (result,) = agnostic(maps, [detections([BOXES[0]] * 2)])
    assert torch.equal(*result.pred_masks.logits)


def test_polygons_and_bitmaps_give_the_same_targets():
    corners = [np.array([10.0, 10, 60, 10, 60, 90]), np.array([20.0, 30, 100, 30, 100, 80, 20, 80])]
    polygons, bitmaps = Instances((SIZE, SIZE)), Instances((SIZE, SIZE))
    polygons.gt_masks = PolygonMasks([[c] for c in corners])
    bitmaps.gt_masks = BitMasks.from_polygon_masks(polygons.gt_masks, SIZE, SIZE)
    regions = torch.tensor([[0.0, 0, 96, 96], [0, 0, 128, 96]])
    index = torch.tensor([1, 0])
    ours = region_targets([polygons[:0], polygons], index, regions, (24, 20))
    theirs = region_targets([bitmaps], index, regions, (24, 20))
    assert (ours == theirs).float().mean() > 0.97
    assert 0.1 < ours.mean() < 0.9


def test_region_masks_as_a_field_of_instances():
    logits = [torch.full((2, 3), v) for v in (-1.0, 1.0, 3.0)]
    masks = RegionMasks(logits, torch.tensor([[0.0, 0, 0.5, 0.5]] * 3))
    found = Instances((10, 10), pred_masks=masks, scores=torch.ones(3))
    assert len(found[torch.tensor([True, False, True])].pred_masks) == 2
    assert found[1].pred_masks.logits[0][0, 0] == 1
    assert len(found.to("cpu").pred_masks[1:]) == 2
    filled = masks.to_bitmasks(None, 10, 10).tensor
    assert filled[:, :5, :5].all(dim=(1, 2)).tolist() == [False, True, True]
    certain = masks.to_bitmasks(None, 10, 10, threshold=0.9).tensor
    assert certain.any(dim=(1, 2)).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="logits must be 3"):
        RegionMasks(logits[:2], masks.regions)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="POOLER_TYPE must be ''"):
        head("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlignV2")
    branches = InstanceBranches(8, (8,), shapes=[(1, 1)])
    with pytest.raises(ValueError, match="halve the stride"):
        InstanceBranchMaskHead(branches=branches, in_features=["p5", "p3"], strides=[32, 8])
