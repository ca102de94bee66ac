from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou

from segroi.modeling.heads.instance_segmentation_branch import (
    InstanceSegmentationBranch,
    box_coordinates,
)
from segroi.modeling.ssd.branches import InstanceBranches
from segroi.modeling.ssd.detector import SSD
from segroi.modeling.ssd.families import FAMILIES, FREQUENT, branch_family, within_budget
from segroi.modeling.ssd.ssd_isb import ssd_isb
from segroi.utils.optim import TFRMSprop


def slim_count(model):
    statistics = [b for n, b in model.named_buffers() if "running_" in n]
    return sum(t.numel() for t in (*model.parameters(), *statistics))


def torch_count(model):
    return sum(p.numel() for p in model.parameters())


# ---- counts of the thesis (Tables 5.5, 5.7, 5.9) ----


def test_counts_of_the_detector():
    with torch.device("meta"):
        assert slim_count(SSD(1)) == 5_543_558
        assert slim_count(SSD(1, 0.75)) == 3_152_790
        assert torch_count(SSD(1)) == 5_518_214
        assert torch_count(SSD(1, 0.75)) == 3_133_782


def test_counts_of_a_branch():
    assert torch_count(InstanceSegmentationBranch()) == 247_073
    assert torch_count(InstanceSegmentationBranch(1024, (512,))) == 222_433
    assert torch_count(InstanceSegmentationBranch(768, (384, 192))) == 205_857
    assert torch_count(InstanceSegmentationBranch(atrous_rate=3)) == 247_073


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"family": "single_branch"}, 5_790_631),
        ({"family": "single_branch", "depth_multiplier": 0.75}, 3_358_647),
        ({"family": "single_branch", "skips": 1}, 5_765_991),
        ({"family": "multi_shape"}, 8_014_288),
        ({"family": "multi_shape", "depth_multiplier": 0.75}, 5_211_360),
        ({"family": "multi_shape", "skips": 1}, 7_767_888),
        ({"family": "multi_shape_new"}, 7_273_069),
        ({"family": "multi_shape_small"}, 7_520_142),
        # with 1x1, which Table 5.1 does not list, the count of Table 5.5 comes out
        ({"family": "single_shape_plus", "shapes": (*FREQUENT, (1, 1), (14, 14))}, 9_002_580),
        # ours; the 8,862,738 of Table 5.5 fits no number of branches
        ({"family": "single_shape"}, 8_508_434),
    ],
)
def test_counts_of_whole_models(arguments, count):
    with torch.device("meta"):
        assert slim_count(ssd_isb(**arguments)) == count


def test_counts_as_torch_counts():
    with torch.device("meta"):
        assert torch_count(ssd_isb(family="single_branch")) == 5_765_287
        assert torch_count(ssd_isb()) == 7_988_944
        assert torch_count(ssd_isb(family="single_branch", depth_multiplier=0.75)) == 3_339_639


# ---- families ----


def cells_of(*shapes):
    return torch.tensor([[1, 2, 1 + w, 2 + h] for h, w in shapes])


def test_rules_of_the_families():
    shapes = cells_of((15, 12), (14, 10), (9, 4), (8, 9), (3, 3), (2, 3), (1, 20), (1, 1))
    multi = FAMILIES["multi_shape"]
    chosen = [multi.shapes[i] for i in multi.assign(shapes).tolist()]
    assert chosen == [
        (15, 10),
        (9, 4),
        (9, 4),
        (7, 3),
        (3, 2),
        (2, 2),
        (1, 1),
        (1, 1),
    ]
    assert FAMILIES["single_branch"].assign(shapes).tolist() == [0] * 8
    exact = FAMILIES["single_shape"].assign(shapes).tolist()
    assert exact == [-1, -1, -1, -1, FREQUENT.index((3, 3)), -1, -1, -1]
    plus = FAMILIES["single_shape_plus"].assign(shapes).tolist()
    assert plus == [12, 12, 12, 12, FREQUENT.index((3, 3)), 12, 12, 12]
    assert FAMILIES["multi_shape_small"].assign(cells_of((20, 20))).tolist() == [0]
    assert [FAMILIES[f].budget for f in ("single_branch", "multi_shape")] == [100, 30]
    assert [FAMILIES[f].mask_weight for f in ("single_branch", "multi_shape")] == [30, 150]


def test_families_with_other_shapes():
    family = branch_family("single_shape_plus", [(2, 2), (5, 5)])
    assert family.exact == [True, False]
    assert family.assign(cells_of((2, 2), (5, 5))).tolist() == [0, 1]
    with pytest.raises(ValueError, match="family must be"):
        branch_family("triple_shape")
    with pytest.raises(ValueError, match="rule"):
        type(family)(((1, 1),), "nearest")
    with pytest.raises(ValueError, match="rest"):
        type(family)(((1, 1),), "fit", rest=1)


def test_budget_keeps_the_first_boxes_of_each_image():
    branch = torch.tensor([0, 0, 1, 0, 0, -1, 1, 0])
    image = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    kept = within_budget(branch, image, 2, 2)
    assert kept.tolist() == [0, 0, 1, -1, 0, -1, 1, 0]
    assert within_budget(branch[:0], image[:0], 2, 2).shape == (0,)


# ---- one branch ----


@pytest.mark.parametrize(("skips", "scale"), [((8, 4), 4), ((8,), 2), ((), 1)])
def test_sizes_of_a_branch(skips, scale):
    branch = InstanceSegmentationBranch(16, skips)
    crops = [torch.randn(3, c, 5 * f, 4 * f) for c, f in zip((16, *skips), (1, 2, 4), strict=False)]
    assert branch.scale == scale
    assert branch(crops).shape == (3, 1, 5 * scale, 4 * scale)
    assert branch([c[:0] for c in crops]).shape == (0, 1, 5 * scale, 4 * scale)
    with pytest.raises(ValueError, match="crops"):
        branch([*crops, crops[0]])


def test_scoring_commutes_with_bilinear_upsampling():
    score = torch.nn.Conv2d(6, 2, 1)
    x = torch.randn(2, 6, 5, 7)
    low = F.interpolate(score(x), scale_factor=8, mode="bilinear")
    torch.testing.assert_close(low, score(F.interpolate(x, scale_factor=8, mode="bilinear")))


def test_box_coordinates():
    regions = torch.tensor([[0.0, 0.0, 8.0, 4.0]])
    where = box_coordinates(regions, torch.tensor([[2.0, 1.0, 6.0, 3.0]]), 4, 8)
    assert where.shape == (1, 3, 4, 8)
    assert where[0, 0, 0].tolist() == [-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75]
    assert where[0, 2].sum() == 2 * 4


# ---- all branches ----


def test_exact_shapes_are_plain_slices():
    torch.manual_seed(0)
    branches = InstanceBranches(6, (5, 4), "single_shape").eval()
    maps = [torch.randn(2, c, 10 * f, 10 * f) for c, f in ((6, 1), (5, 2), (4, 4))]
    boxes = torch.tensor([[33.0, 40.0, 90.0, 150.0], [0.0, 0.0, 320.0, 320.0], [64, 64, 128, 128]])
    image = torch.tensor([1, 0, 1])
    masks = branches(maps, boxes, image, (320, 320))
    assert [(m.index.tolist(), list(m.logits.shape[-2:])) for m in masks] == [
        ([0], [16, 8]),
        ([2], [8, 8]),
    ]
    assert masks[0].regions.tolist() == [[32, 32, 96, 160]]
    slices = [m[1:, :, f : 5 * f, f : 3 * f] for m, f in zip(maps, (1, 2, 4))]
    module = branches.branches[FREQUENT.index((4, 2))]
    torch.testing.assert_close(masks[0].logits, module(slices))


def test_each_branch_sees_only_its_boxes():
    branches = InstanceBranches(3, (), "single_shape", [(1, 1), (2, 2)])
    maps = [torch.randn(1, 3, 4, 4)]
    box = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
    masks = branches(maps, box, torch.zeros(1).long(), (128, 128))
    sum(m.logits.sum() for m in masks).backward()
    used, unused = branches.branches
    assert used.score.bias.grad.item() == 1
    assert all(p.grad.count_nonzero() == 0 for p in unused.parameters())


def test_equal_regions_have_equal_masks_unless_conditioned_on_the_box():
    torch.manual_seed(0)
    maps = [torch.randn(1, c, 4 * f, 4 * f) for c, f in ((6, 1), (5, 2), (4, 4))]
    boxes = torch.tensor([[34.0, 36.0, 70.0, 90.0], [50.0, 40.0, 95.0, 95.0]])
    for condition in (False, True):
        branches = InstanceBranches(6, (5, 4), "single_shape", condition_on_box=condition).eval()
        (masks,) = branches(maps, boxes, torch.zeros(2).long(), (128, 128))
        assert torch.equal(masks.regions[0], masks.regions[1])
        assert torch.equal(masks.logits[0], masks.logits[1]) is not condition


def test_atrous_rates_of_branches():
    branches = InstanceBranches(3, (), "single_shape", [(1, 1), (2, 2)], atrous_rates=(1, 3))
    assert [b.depthwise.dilation for b in branches.branches] == [(1, 1), (3, 3)]
    with pytest.raises(ValueError, match="atrous_rates"):
        InstanceBranches(3, (), "single_shape", atrous_rates=(1, 2))


# ---- whole model ----

SMALL = {"depth_multiplier": 0.25, "image_size": (96, 128), "norm_momentum": 0.1}


def sample(objects=2, size=(60, 80)):
    image = torch.rand(3, *size) * 0.2
    boxes = torch.tensor([[5.0, 6.0, 30.0, 50.0], [40.0, 10.0, 75.0, 40.0]])[:objects]
    masks = torch.zeros(objects, *size)
    for mask, box in zip(masks, boxes.int().tolist()):
        x0, y0, x1, y1 = box
        mask[y0:y1, x0 : (x0 + x1) // 2] = 1  # the left half of the box
        image[:, y0:y1, x0:x1] += 0.6
    return image, {"boxes": boxes, "labels": torch.ones(objects).long(), "masks": masks}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_train_and_predict(family):
    torch.manual_seed(0)
    model = ssd_isb(2, family, class_masks=True, **SMALL)
    images, targets = zip(sample(), sample(0, (50, 70)))
    losses = model(images, targets)
    assert set(losses) == {"loss_box", "loss_cls", "loss_mask"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    detections = model(images)
    for found, size in zip(detections, ((60, 80), (50, 70))):
        count = len(found["boxes"])
        assert found["masks"].shape == (count, 1, *size)
        assert found["regions"].shape == (count, 4)
        limit = torch.tensor([size[1], size[0]] * 2)
        assert (found["boxes"] >= 0).all() and (found["boxes"] <= limit).all()
        contained = found["regions"][:, 2:] >= found["boxes"][:, 2:] - 1e-3
        assert contained.all()


def test_budget_limits_the_detections_of_a_branch():
    torch.manual_seed(0)
    model = ssd_isb(family="multi_shape", shapes=[(1, 1)], **SMALL).eval()
    (found,) = model([torch.rand(3, 60, 80)])
    assert len(found["boxes"]) == 30
    assert (found["scores"].diff() <= 0).all()


def test_no_gradient_of_the_masks_reaches_the_trunk():
    model = ssd_isb(family="multi_shape", **SMALL)
    image, target = sample()
    model([image], [target])["loss_mask"].backward()
    trunk = list(model.detector.parameters())
    assert all(p.grad is None or p.grad.count_nonzero() == 0 for p in trunk)
    assert any(p.grad.count_nonzero() for p in model.branches.parameters())


def test_crops_of_anchors_show_their_objects(monkeypatch):
    """A crop of an anchor is compared with the mask of the object that the anchor is matched to."""
    torch.manual_seed(0)
    model = ssd_isb(family="single_branch", crops="anchors", **{**SMALL, "image_size": (192, 256)})
    image, target = sample()
    seen = []
    segment = model._segment
    monkeypatch.setattr(
        model, "_segment", lambda output, boxes: seen.append(boxes) or segment(output, boxes)
    )
    target["masks"][0], target["masks"][1] = 1, 0  # tells which object a target is of
    targets = []
    inner = model._mask_targets
    monkeypatch.setattr(model, "_mask_targets", lambda *a: targets.append(inner(*a)) or targets[-1])
    model([image], [target])
    unit = target["boxes"] / torch.tensor([80.0, 60.0, 80.0, 60.0])
    overlaps = box_iou(seen[0][0], unit)
    assert len(seen[0][0]) > 2
    assert torch.equal(targets[0].mean(dim=(1, 2)) == 1, overlaps.argmax(dim=1) == 0)
    best = overlaps.max(dim=1).values
    assert (best.diff() <= 0).all()
    empty = sample(0)
    losses = model([image, empty[0]], [target, empty[1]])
    assert torch.isfinite(losses["loss_mask"])


def test_nothing_to_find():
    model = ssd_isb(family="single_shape_plus", **SMALL)
    image, target = sample(0)
    losses = model([image], [target])
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    model.detector.score_threshold = 2.0
    (found,) = model.eval()([image])
    assert found["masks"].shape == (0, 1, 60, 80)


def test_learns_a_batch():
    torch.manual_seed(0)
    model = ssd_isb(family="multi_shape", shapes=[(2, 2), (1, 1)], **SMALL)
    optimizer = TFRMSprop(model.parameters(), lr=3e-3)
    image, target = sample()
    first = None
    for _ in range(100):
        losses = model([image, image], [target, target])
        optimizer.zero_grad()
        total = losses["loss_box"] + losses["loss_cls"] + losses["loss_mask"] / 10
        total.backward()
        optimizer.step()
        first = first or {k: v.item() for k, v in losses.items()}
    assert losses["loss_mask"] < 0.5 * first["loss_mask"]
    assert losses["loss_box"] + losses["loss_cls"] < 0.3 * (first["loss_box"] + first["loss_cls"])
    (found,) = model.eval()([image])
    best = found["masks"][0, 0].float()
    overlaps = [((best * m).sum() / (best + m).clamp(max=1).sum()).item() for m in target["masks"]]
    assert max(overlaps) > 0.5


def test_wrong_arguments():
    with pytest.raises(ValueError, match="multiples of 32"):
        ssd_isb(image_size=(100, 96), depth_multiplier=0.25)
    with pytest.raises(ValueError, match="crops must be boxes or anchors"):
        ssd_isb(crops="proposals", **SMALL)
    with pytest.raises(ValueError, match="targets must be given"):
        ssd_isb(**SMALL)([torch.rand(3, 40, 40)])


def test_resized_crops_are_those_of_a_max_pool():
    from segroi.modeling.ssd.branches import _max_pool, resized_crops
    from segroi.ops import crop_and_resize

    x = torch.randn(3, 5, 6, 8)
    assert torch.equal(_max_pool(x), F.max_pool2d(x, 2))
    maps = [torch.randn(1, 4, 5, 5), torch.randn(1, 3, 10, 10)]
    cells, image = torch.tensor([[1, 1, 4, 5]]), torch.zeros(1).long()
    coarse, fine = resized_crops(maps, cells, image, (2, 3))
    assert coarse.shape == (1, 4, 2, 3)
    sampled = crop_and_resize(maps[1], cells.float() * 2, image, (8, 12), coordinates="aligned")
    assert torch.equal(fine, F.max_pool2d(sampled, 2))


def test_few_boxes_at_a_time_give_the_same_masks(monkeypatch):
    from segroi.modeling.ssd import branches as module

    torch.manual_seed(0)
    model = InstanceBranches(6, (5, 4), "single_branch", [(3, 3)]).eval()
    maps = [torch.randn(1, c, 4 * f, 4 * f) for c, f in ((6, 1), (5, 2), (4, 4))]
    boxes = torch.rand(7, 4) * 60 + torch.tensor([0.0, 0.0, 64.0, 64.0])
    image = torch.zeros(7).long()
    (together,) = model(maps, boxes, image, (128, 128))
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    (apart,) = model(maps, boxes, image, (128, 128))
    torch.testing.assert_close(together.logits, apart.logits)
