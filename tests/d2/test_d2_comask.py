from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from segroi.d2 import load_config
from segroi.d2.comask_picture import dense_box_picture
from segroi.d2.necks import MultiScaleFPN
from segroi.layers.dense_boxes import encode_dense_boxes
from segroi.modeling.heads.collaborative import CollaborativeOutput

ROOT = Path(__file__).parents[2]
ABLATIONS = ROOT / "projects/CoMask/configs"
CONFIGS = sorted(set(ABLATIONS.glob("*.yaml")) - set(ABLATIONS.glob("mask_rcnn*.yaml")))
CONFIGS += sorted((ROOT / "configs/d2").glob("comask*.yaml"))

TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.BACKBONE.NAME": "build_small_resnet_mfpn_backbone",
    "MODEL.SMALL_RESNET.CHANNELS": (8, 12, 16, 20, 24),
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 100,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 50,
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.COMASK.CONV_DIM": 16,
    "MODEL.COMASK.NUM_CONVS": 2,
    "MODEL.ROI_BOX_HEAD.EXTRACTOR": "",
    "MODEL.ROI_MASK_HEAD.EXTRACTOR": "",
    "MODEL.COMASK.NORM_GROUPS": 4,
}


def tiny_model(**overrides):
    options = {**TINY, **{f"MODEL.COMASK.{k}": v for k, v in overrides.items()}}
    flat = [item for pair in options.items() for item in pair]
    torch.manual_seed(0)
    return build_model(load_config(str(ROOT / "configs/d2/comask_R_50_FPN_2x.yaml"), flat))


def sample(num_instances=2, seed=0):
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 5:50, 5:40] = masks[1, 10:60, 50:90] = True
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor([[5.0, 5, 40, 50], [50, 10, 90, 60]])[:num_instances])
    instances.gt_classes = torch.tensor([1, 2])[:num_instances]
    instances.gt_masks = BitMasks(masks[:num_instances])
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": instances, "height": 128, "width": 192}


def train_losses(model, batch, seed=0):
    torch.manual_seed(seed)
    with EventStorage():
        return model.train()(copy.deepcopy(batch))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_yaml_and_lazy_config_build_the_same_model(file):
    cfg = load_config(str(file), ["MODEL.DEVICE", "meta"])
    lazy = LazyConfig.load(str(file.with_suffix(".py")))
    with torch.device("meta"):
        from_yaml, from_lazy = build_model(cfg), instantiate(lazy.model)
    shapes = [{k: v.shape for k, v in m.named_parameters()} for m in (from_yaml, from_lazy)]
    assert shapes[0] == shapes[1]
    ours, theirs = from_yaml.roi_heads, from_lazy.roi_heads
    for name in ("box", "threshold", "loss_weights", "jitter", "max_positives"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.box_predictor.test_nms_thresh == theirs.box_predictor.test_nms_thresh
    assert (
        ours.box_predictor.loss_weight["loss_cls"] == theirs.box_predictor.loss_weight["loss_cls"]
    )
    assert from_yaml.backbone.neck.levels[0].chain == from_lazy.backbone.neck.levels[0].chain
    assert cfg.SOLVER.MAX_ITER == lazy.train.max_iter


def test_neck_and_extractor_compose():
    file = ABLATIONS / "mask_rcnn_groie_mfpn_R_50_FPN_1x.yaml"
    with torch.device("meta"):
        from_yaml = build_model(load_config(str(file), ["MODEL.DEVICE", "meta"]))
        from_lazy = instantiate(LazyConfig.load(str(file.with_suffix(".py"))).model)
    assert _shapes(from_yaml) == _shapes(from_lazy)
    groie = 2 * (1_638_656 + 258_305)
    expected = 44_120_816 + 222_400 + 5 * 4_401_424 + groie
    assert sum(p.numel() for p in from_yaml.parameters()) == expected


@pytest.mark.parametrize(
    ("name", "neck"), [("comask1", 664_336), ("comask2", 1_319_952), ("cascade_neck", 2_631_184)]
)
def test_parameters_of_the_neck(name, neck):
    file = ABLATIONS / f"{name}_R_50_FPN_2x.yaml"
    with torch.device("meta"):
        model = build_model(load_config(str(file), ["MODEL.DEVICE", "meta"]))
    assert isinstance(model.backbone, MultiScaleFPN)
    assert sum(p.numel() for p in model.backbone.neck.parameters()) == 5 * neck


def test_parameters_of_the_whole_model():
    file = ROOT / "configs/d2/comask_R_50_FPN_2x.yaml"
    with torch.device("meta"):
        model = build_model(load_config(str(file), ["MODEL.DEVICE", "meta"]))
    body, box_fc = 27_170_831 + 222_400, 12_846_080 + 1_049_600
    classes = 1_024 * 81 + 81
    expected = body + 5 * 4_401_424 + box_fc + classes + 29_272_917
    assert sum(p.numel() for p in model.parameters()) == expected
    assert not hasattr(model.roi_heads.box_predictor, "bbox_pred")


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({}, {"loss_cls", "loss_offset", "loss_mask"}),
        ({"AVERAGE_LOSS_WEIGHT": 1.0}, {"loss_cls", "loss_offset", "loss_mask", "loss_average"}),
        ({"BOX": "uniform"}, {"loss_cls", "loss_offset", "loss_mask"}),
        ({"BOX": "fc"}, {"loss_cls", "loss_box_reg", "loss_offset", "loss_mask"}),
    ],
)
@pytest.mark.parametrize("batch", [[2, 0], [0]], ids=["mixed", "without_instances"])
def test_training_step(overrides, names, batch):
    model = tiny_model(**overrides)
    losses = train_losses(model, [sample(n) for n in batch])
    assert set(losses) == names | {"loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_amp_on_cpu():
    model = tiny_model()
    exact = train_losses(model, [sample()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = train_losses(model, [sample()])
        sum(losses.values()).backward()
        detections = model.eval()([sample()])[0]["instances"]
    assert losses["loss_mask"].dtype == torch.float32
    assert losses["loss_mask"].item() == pytest.approx(exact["loss_mask"].item(), rel=0.05)
    assert detections.pred_boxes.tensor.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("box", ["collaborative", "uniform", "fc"])
@pytest.mark.parametrize("score_thresh", [0.0, 1.1], ids=["many", "none"])
def test_inference(box, score_thresh):
    model = tiny_model(BOX=box).eval()
    model.roi_heads.box_predictor.test_score_thresh = score_thresh
    for output in model([sample(), sample(seed=1)]):
        detections = output["instances"]
        assert detections.image_size == (128, 192)
        assert detections.pred_masks.shape == (len(detections), 128, 192)
        assert not hasattr(detections, "dense_boxes")
        assert (len(detections) == 0) == (score_thresh > 1)


@torch.no_grad()
def test_second_look_is_taken_at_the_averaged_box():
    """A head that knows the answer moves a bad detection onto its instance, then masks it there."""
    model = tiny_model().eval()
    heads, target = model.roi_heads, torch.tensor([[5.0, 5.0, 40.0, 50.0]])
    start, seen = torch.tensor([[0.0, 0.0, 45.0, 44.0]]), []

    def answer(_, args, __):
        seen.append(args[0].clone())
        logits = torch.full((1, 4, 28, 28), 4.0)
        return CollaborativeOutput(encode_dense_boxes(target, start, 7), logits)

    heads.mask_head.register_forward_hook(answer)
    detections = Instances((64, 96), pred_boxes=Boxes(start), pred_classes=torch.tensor([1]))
    features = model.backbone(torch.randn(1, 3, 64, 96))
    heads.keep_dense_boxes = True
    heads.refine_boxes(features, [detections])
    torch.testing.assert_close(detections.pred_boxes.tensor, target)
    assert detections.dense_boxes.shape == (1, 49, 4)
    heads.forward_with_given_boxes(features, [detections])
    levels = [features[f] for f in heads.mask_in_features]
    torch.testing.assert_close(seen[0], heads.mask_pooler(levels, [Boxes(start)]))
    torch.testing.assert_close(seen[1], heads.mask_pooler(levels, [Boxes(target)]))
    assert detections.pred_masks.shape == (1, 1, 28, 28)


@torch.no_grad()
def test_classified_proposals_keep_their_boxes_until_they_are_refined():
    model = tiny_model(BOX="fc").eval()
    predictor = tiny_model().roi_heads.box_predictor
    proposals = Instances((64, 96), proposal_boxes=Boxes(torch.tensor([[3.0, 4, 30, 50]])))
    predictions = predictor(torch.randn(1, 32))
    boxes = predictor.predict_boxes(predictions, [proposals])[0]
    torch.testing.assert_close(boxes, proposals.proposal_boxes.tensor)
    assert model.roi_heads.box_predictor.bbox_pred.out_features == 12


def test_at_most_so_many_positives_are_trained_and_all_are_jittered():
    heads = tiny_model(MAX_POSITIVES=5, JITTER=0.1).roi_heads
    proposals = []
    for count in (6, 0, 6):
        boxes = torch.tensor([[10.0, 10, 50, 50]]).repeat(count, 1)
        fields = {"proposal_boxes": Boxes(boxes), "gt_classes": torch.full((count,), 1)}
        proposals.append(Instances((64, 96), **fields))
    sampled = heads._sample_positives(proposals)
    assert sum(len(p) for p in sampled) == 5 and len(sampled[1]) == 0
    moved = torch.cat([p.proposal_boxes.tensor for p in sampled])
    assert len(moved.unique(dim=0)) == 5 and (moved - 10 < 50).all()


def test_unknown_box_source():
    with pytest.raises(ValueError, match="box must be one of"):
        tiny_model(BOX="median")


def test_neck_keeps_the_checkpoint_names_of_the_fpn_and_exports():
    cfg = load_config(str(ROOT / "configs/d2/comask_R_50_FPN_2x.yaml"))
    names = {k for k in _shapes(build_backbone_on_meta(cfg)) if not k.startswith("neck.")}
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    assert names == set(_shapes(build_backbone_on_meta(cfg)))
    backbone = tiny_model().backbone.eval()
    images = torch.randn(1, 3, 64, 96)
    program = torch.export.export(backbone, (images,))
    for name, level in program.module()(images).items():
        torch.testing.assert_close(level, backbone(images)[name])


def build_backbone_on_meta(cfg):
    from detectron2.modeling import BACKBONE_REGISTRY

    with torch.device("meta"):
        builder = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)
        return builder(cfg, ShapeSpec(channels=3))


def _shapes(module):
    return {k: v.shape for k, v in module.state_dict().items()}


def _train_in_process(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = DistributedDataParallel(tiny_model())
    for step, batch in enumerate(([sample()], [sample(2 * (rank == 0))])):
        losses = train_losses(model, batch)
        model.zero_grad()
        sum(losses.values()).backward()
        gradients = {k: p.grad for k, p in model.module.named_parameters() if p.requires_grad}
        losses = {k: v.detach() for k, v in losses.items()}
        torch.save((losses, gradients), f"{folder}/{step}_{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    """Step 0: both see the same image. Step 1: one process has no instance at all."""
    multiprocessing.spawn(_train_in_process, (str(tmp_path),), nprocs=2)
    model = tiny_model()
    losses = train_losses(model, [sample()])
    sum(losses.values()).backward()
    for rank in range(2):
        theirs, gradients = torch.load(tmp_path / f"0_{rank}.pt")
        torch.testing.assert_close(theirs, {k: v.detach() for k, v in losses.items()})
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)
    first, second = (torch.load(tmp_path / f"1_{rank}.pt") for rank in range(2))
    assert first[0]["loss_mask"] > 0 and second[0]["loss_mask"] == 0
    torch.testing.assert_close(first[1], second[1])


def test_picture_of_one_detection():
    model = tiny_model().train()
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    assert dense_box_picture(model, sample()).shape == (500, 1000, 3)
    assert dense_box_picture(model, sample(), index=10_000) is None
    assert model.training and not model.roi_heads.keep_dense_boxes


@pytest.mark.parametrize("name", ["comask_digits", "comask_small"])
def test_small_configs_train_and_predict(name):
    cfg = LazyConfig.load(str(ROOT / f"configs/quick/{name}.py"))
    model = instantiate(cfg.model)
    losses = train_losses(model, [sample()])
    assert {"loss_cls", "loss_offset", "loss_mask"} < set(losses)
    sum(losses.values()).backward()
    with torch.no_grad():
        assert model.eval()([sample()])[0]["instances"].has("pred_masks")


def test_script_that_compares_choices_of_the_box(digits, tmp_path, monkeypatch, capsys):
    config = ROOT / "configs/quick/comask_digits.py"
    torch.manual_seed(0)
    model = instantiate(LazyConfig.load(str(config)).model)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    words = f"look --config-file {config} --weights {tmp_path}/model.pth --output {tmp_path}/look "
    words += f"--pictures 1 --data-json {digits}/val.json --images {digits}/images"
    monkeypatch.setattr("sys.argv", words.split())
    runpy.run_path(str(ROOT / "projects/CoMask/look.py"), run_name="__main__")
    average = json.loads((tmp_path / "look/weighted_average/evaluation.json").read_text())
    assert set(average) == {"box", "mask"} and set(average["box"]) == {"AP", "AP50", "AP75"}
    assert (tmp_path / "look/central_cell/provenance.json").exists()
    assert "most confident cell" in capsys.readouterr().out
