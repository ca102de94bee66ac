from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from segroi.d2 import load_config
from segroi.d2.evaluation import MASK_SCORES
from segroi.d2.mask_targets import crop_gt_masks, gt_area_ratios
from segroi.d2.roi_heads import RecursiveROIHeads

ROOT = Path(__file__).resolve().parents[2]
CHANNELS, SIZE, CLASSES = 8, 64, 3
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}


def small(config="r3_cnn_naive", **recursive):
    """Heads of a config, narrow, with Detectron2's pooler."""
    cfg = load_config(str(ROOT / f"configs/d2/{config}_R_50_FPN_1x.yaml"))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = ""
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = cfg.MODEL.MASK_IOU.FC_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = cfg.MODEL.MASK_IOU.CONV_DIM = 8
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 2
    cfg.MODEL.RECURSIVE.merge_from_other_cfg(type(cfg)(recursive))
    return cfg


def build(cfg):
    torch.manual_seed(0)
    shapes = {name: ShapeSpec(channels=CHANNELS, stride=s) for name, s in STRIDES.items()}
    return build_roi_heads(cfg, shapes)


def random_boxes(n):
    corner = torch.rand(n, 2) * SIZE / 2
    return Boxes(torch.cat([corner, corner + 8 + torch.rand(n, 2) * SIZE / 4], dim=1))


def batch(objects=2, proposals=6, polygons=False):
    torch.manual_seed(0)
    images = ImageList(torch.zeros(2, 3, SIZE, SIZE), [(SIZE, SIZE)] * 2)
    features = {n: torch.randn(2, CHANNELS, SIZE // s, SIZE // s) for n, s in STRIDES.items()}
    found, truth = [], []
    for _ in range(2):
        gt = Instances((SIZE, SIZE), gt_boxes=random_boxes(objects))
        gt.gt_classes = torch.arange(objects) % CLASSES
        gt.gt_masks = rectangles(gt.gt_boxes, polygons)
        truth.append(gt)
        near = gt.gt_boxes.tensor + torch.randn(objects, 4)
        tensor = torch.cat([near, random_boxes(proposals).tensor])
        found.append(Instances((SIZE, SIZE), proposal_boxes=Boxes(tensor)))
        found[-1].objectness_logits = torch.zeros(len(tensor))
    return images, features, found, truth


def rectangles(boxes, polygons=False):
    if polygons:
        return PolygonMasks([[box[[0, 1, 2, 1, 2, 3, 0, 3]].numpy()] for box in boxes.tensor])
    masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tensor.round().int().tolist()):
        mask[y0:y1, x0:x1] = True
    return BitMasks(masks)


def train(heads, **kwargs):
    images, features, found, truth = batch(**kwargs)
    torch.manual_seed(1)
    with EventStorage() as storage:
        losses = heads.train()(images, features, found, truth)[1]
        return losses, storage


@torch.no_grad()
def predict(heads, **kwargs):
    images, features, found, _ = batch(**kwargs)
    return heads.eval()(images, features, found)[0]


def count_calls(modules):
    calls = [0] * len(modules)

    def hook(index):
        def add(*_):
            calls[index] += 1

        return add

    for index, module in enumerate(modules):
        module.register_forward_hook(hook(index))
    return calls


SYSTEMS = ["r3_cnn_naive", "r3_cnn_deeper", "htc", "sbr_cnn"]


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_loop_has_finite_losses_and_every_parameter_a_gradient(system, polygons):
    heads = build(small(system))
    losses, _ = train(heads, polygons=polygons)
    names = {f"{n}_loop{t}" for n in ("loss_cls", "loss_box_reg", "loss_mask") for t in range(3)}
    assert set(losses) == names | ({"loss_mask_iou_loop2"} if system == "sbr_cnn" else set())
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(p.grad is not None for p in heads.parameters())


@pytest.mark.parametrize(("objects", "proposals"), [(0, 6), (0, 0), (2, 0)])
@pytest.mark.parametrize("system", ["r3_cnn_deeper", "htc", "sbr_cnn"])
def test_images_without_objects_or_proposals(system, objects, proposals):
    heads = build(small(system))
    losses, _ = train(heads, objects=objects, proposals=proposals)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None for p in heads.parameters())
    if not objects:
        assert not any(p.grad.any() for p in heads.mask_head.parameters())
        for instances in predict(heads, objects=0, proposals=0):
            assert len(instances) == 0 and instances.pred_masks.shape == (0, 1, 28, 28)


@pytest.mark.parametrize("alternation", ["a", "ab", "aab", "abb", "aba", "aabb", "abab", "aabbb"])
def test_loops_and_passes_follow_the_alternation(alternation):
    heads = build(small(ALTERNATION=alternation))
    stages = [ord(letter) - ord("a") for letter in alternation]
    box_calls = count_calls(heads.box_head)
    mask_calls = count_calls([head.carry for head in heads.mask_head])
    predictions = count_calls([head.predictor for head in heads.mask_head])
    train(heads)
    assert box_calls == predictions == [stages.count(h) for h in range(len(heads.box_head))]
    passes = [stage for t in range(len(stages)) for stage in stages[: t + 1]]
    assert mask_calls == [passes.count(h) for h in range(len(heads.box_head))]


def test_without_the_mask_loop_every_loop_trains_one_pass():
    heads = build(small(MASK_LOOP=False))
    calls = count_calls([heads.mask_head[0].carry])
    train(heads)
    assert calls == [3]


@pytest.mark.parametrize(("loops", "expected"), [(0, 3), (1, 1), (2, 2), (5, 5)])
def test_inference_loops_change_no_weights(loops, expected):
    reference, heads = build(small()), build(small(INFERENCE_LOOPS=loops))
    heads.load_state_dict(reference.state_dict())
    box_calls, mask_calls = count_calls(heads.box_head), count_calls([heads.mask_head[0].carry])
    predict(heads)
    assert box_calls == mask_calls == [expected]


def test_more_inference_loops_use_the_last_head():
    heads = build(small("r3_cnn_deeper", INFERENCE_LOOPS=5))
    calls = count_calls(heads.box_head)
    predict(heads)
    assert calls == [2, 3]


def test_loss_weights_scale_every_loop_but_not_mask_iou():
    plain, weighted = (
        train(build(small("sbr_cnn", IOU_THRESHOLDS=(0.5, 0.6, 0.7), LOSS_WEIGHTS=weights)))[0]
        for weights in ((1.0, 1.0, 1.0), (1.0, 0.75, 0.5))
    )
    for name, loss in plain.items():
        loop = int(name[-1])
        factor = 1.0 if "iou" in name else (1.0, 0.75, 0.5)[loop]
        torch.testing.assert_close(weighted[name], factor * loss, msg=name)


def test_ground_truth_joins_every_sample_but_no_later_proposals():
    heads = build(small())
    heads.batch_size_per_image = 64  # enough for every positive
    images, features, found, truth = batch()
    sampled, refined = [], []
    sample, refine = heads._sample, heads._refine
    heads._sample = lambda *args: sampled.append(sample(*args)) or sampled[-1]
    heads._refine = lambda *args: refined.append(refine(*args)) or refined[-1]
    with EventStorage():
        heads.train()(images, features, found, truth)
    assert len(sampled) == 6  # for the boxes and for the masks of three loops
    for samples in sampled:
        for instances, target in zip(samples, truth):
            assert instances.from_gt.sum() == len(target)
            found_gt = instances.proposal_boxes.tensor[instances.from_gt]
            assert torch.equal(found_gt.sort(0)[0], target.gt_boxes.tensor.sort(0)[0])
    assert [len(instances) for instances in refined[0]] == [8, 8]
    assert not any(boxes.proposal_boxes.tensor.requires_grad for boxes in refined[0])


def test_positives_of_a_loop_reach_its_own_threshold():
    heads = build(small())
    images, features, found, truth = batch(proposals=40)
    sampled = []
    sample = heads._sample

    def spy(proposals, targets, loop):
        sampled.append((loop, sample(proposals, targets, loop)))
        return sampled[-1][1]

    heads._sample = spy
    with EventStorage():
        heads.train()(images, features, found, truth)
    assert [loop for loop, _ in sampled] == [0, 0, 1, 1, 2, 2]
    for loop, samples in sampled:
        for instances in samples:
            positive = instances.gt_classes < CLASSES
            assert torch.equal(positive, instances.iou >= (0.5, 0.6, 0.7)[loop])


def test_coder_belongs_to_the_head_not_to_the_loop():
    heads = build(small("htc"))
    weights = [predictor.box2box_transform.weights for predictor in heads.box_predictor]
    assert weights == [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    assert len(build(small()).box_predictor) == 1
    carries = [head.carry is not None for head in heads.mask_head]
    assert carries == [False, True, True]


def test_classification_of_all_loops_is_averaged_before_the_softmax():
    heads = build(small("r3_cnn_deeper"))
    for predictor in heads.box_predictor:
        torch.nn.init.normal_(predictor.cls_score.weight, std=1.0)
        torch.nn.init.zeros_(predictor.bbox_pred.weight)  # every loop sees the same boxes
        predictor.test_nms_thresh = 1.0
    images, features, found, _ = batch()
    logits = [heads._predict(features, found, stage)[0] for stage in (0, 0, 1)]
    expected = torch.stack(logits).mean(0).softmax(-1)[:, :-1].split([8, 8])
    for instances, scores in zip(predict(heads), expected):
        torch.testing.assert_close(
            instances.scores, scores.flatten().sort(descending=True)[0][: len(instances)]
        )


def test_mask_scores_do_not_touch_box_scores():
    heads = build(small("sbr_cnn"))
    torch.nn.init.constant_(heads.mask_iou_head.iou.bias, 0.5)
    scored = predict(heads)
    heads.mask_iou_head = None
    plain = predict(heads)
    for one, other in zip(scored, plain):
        assert len(one) > 0
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.pred_masks, other.pred_masks)
        ratio = one.get(MASK_SCORES) / one.scores
        assert ((ratio > 0) & (ratio < 1)).all()
        assert not other.has(MASK_SCORES)


def test_distribution_of_the_samples_is_logged():
    heads = build(small())
    _, storage = train(heads)
    for loop in range(3):
        parts = [storage.latest()[f"loop{loop}/iou/{index:02d}"][0] for index in range(20)]
        assert sum(parts) == pytest.approx(1)
    assert heads.iou_histogram.counts.sum(dim=1).gt(0).all()


@pytest.mark.parametrize("polygons", [False, True])
def test_mask_targets_of_a_box_that_covers_half_of_its_object(polygons):
    gt = Instances((SIZE, SIZE), gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40]])))
    gt.gt_masks = rectangles(gt.gt_boxes, polygons)
    half = Boxes(torch.tensor([[8.0, 8, 24, 40]]))
    sample = Instances((SIZE, SIZE), proposal_boxes=half, gt_masks=gt.gt_masks)
    sample.gt_index = torch.tensor([0])
    empty = Instances((SIZE, SIZE), proposal_boxes=Boxes(torch.zeros(0, 4)))
    torch.testing.assert_close(
        gt_area_ratios([empty, sample], [empty, gt]), torch.tensor([0.5]), atol=0.02, rtol=0
    )
    crops = crop_gt_masks([empty, sample], 28)
    assert crops.shape == (1, 28, 28) and crops.mean() > 0.95
    assert crop_gt_masks([empty], 28).shape == (0, 28, 28)
    assert gt_area_ratios([empty], [empty]).shape == (0,)


@pytest.mark.parametrize("system", [*SYSTEMS, "htc_dcn", "sbr_cnn_dcn"])
def test_yacs_and_lazy_build_the_same_heads(system):
    cfg = load_config(str(ROOT / f"configs/d2/{system}_R_50_FPN_1x.yaml"))
    shapes = {name: ShapeSpec(channels=256, stride=s) for name, s in STRIDES.items()}
    yacs = build_roi_heads(cfg, shapes)
    lazy = LazyConfig.load(str(ROOT / f"configs/d2/{system}_R_50_FPN_1x.py")).model.roi_heads
    lazy = instantiate(lazy)
    assert type(lazy) is type(yacs) is RecursiveROIHeads
    sizes = [{name: value.shape for name, value in h.state_dict().items()} for h in (yacs, lazy)]
    assert sizes[0] == sizes[1]
    for name in ("schedule", "inference_stages", "score_average", "mask_loop", "mask_iou_weight"):
        assert getattr(yacs, name) == getattr(lazy, name), name
    for one, other in zip(yacs.box_predictor, lazy.box_predictor):
        for name in ("smooth_l1_beta", "test_score_thresh", "num_classes"):
            assert getattr(one, name) == getattr(other, name), name
        assert tuple(one.box2box_transform.weights) == tuple(other.box2box_transform.weights)
    for one, other in zip(
        [*yacs.box_pooler, *yacs.mask_pooler], [*lazy.box_pooler, *lazy.mask_pooler]
    ):
        assert repr(one) == repr(other)


def test_boxes_alone():
    cfg = small()
    cfg.MODEL.MASK_ON = False
    heads = build(cfg)
    losses, _ = train(heads)
    assert set(losses) == {f"{n}_loop{t}" for n in ("loss_cls", "loss_box_reg") for t in range(3)}
    assert all(len(i) and not i.has("pred_masks") for i in predict(heads))


def test_class_specific_regression_is_refused():
    cfg = small()
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = False
    with pytest.raises(ValueError, match="CLS_AGNOSTIC_BBOX_REG"):
        build(cfg)


def test_number_of_heads_must_fit_the_schedule():
    heads = build(small())
    with pytest.raises(ValueError, match="box_heads must hold 1 heads.*got 2"):
        RecursiveROIHeads(
            schedule=heads.schedule,
            box_poolers=heads.box_pooler,
            box_heads=[*heads.box_head] * 2,
            box_predictors=heads.box_predictor,
        )


@pytest.mark.parametrize("system", ["r3_cnn_deeper", "htc", "sbr_cnn"])
def test_trains_and_predicts_in_bfloat16(system):
    cfg = small(system)
    if system == "sbr_cnn":
        cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = "GRoIE"
    heads = build(cfg)
    exact, _ = train(heads)
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = train(heads)
        sum(losses.values()).backward()
        assert all(len(instances) for instances in predict(heads))
    assert all(p.grad.isfinite().all() for p in heads.parameters())
    for loop in range(3):
        torch.testing.assert_close(
            losses[f"loss_cls_loop{loop}"], exact[f"loss_cls_loop{loop}"], rtol=0.2, atol=0.05
        )


def _losses_and_gradients(heads, module, objects):
    heads.zero_grad(set_to_none=True)
    losses, _ = train(module, objects=objects)
    sum(losses.values()).backward()
    losses = {name: loss.detach() for name, loss in losses.items()}
    return losses, {name: p.grad.clone() for name, p in heads.named_parameters()}


def _train_in_process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    heads = build(small("sbr_cnn"))
    module = DistributedDataParallel(heads.train())
    # Every process sees the same images; then one of them sees none with an object.
    for step, objects in enumerate((2, 0 if rank else 2)):
        result = _losses_and_gradients(heads, module, objects)
        torch.save(result, f"{folder}/{step}_{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    multiprocessing.spawn(_train_in_process, (str(tmp_path),), nprocs=2)
    heads = build(small("sbr_cnn"))
    losses, gradients = _losses_and_gradients(heads, heads, 2)
    for rank in range(2):
        theirs = torch.load(tmp_path / f"0_{rank}.pt")
        torch.testing.assert_close(theirs, (losses, gradients))
    first, second = (torch.load(tmp_path / f"1_{rank}.pt") for rank in range(2))
    assert first[0]["loss_mask_loop0"] > 0 and second[0]["loss_mask_loop0"] == 0
    torch.testing.assert_close(first[1], second[1])
