"""Yaml and lazy configs say the same; every row of GRoIE's ablation builds what it names."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.solver import build_lr_scheduler

from segroi.d2 import SegroiPooler, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs/d2"
STEMS = sorted({p.stem for p in CONFIGS.glob("*.py")} & {p.stem for p in CONFIGS.glob("*.yaml")})
LEAVES = {
    # file: parameters of the extractor before the box head
    "baseline": 0,
    "aggregation_random": 0,
    "aggregation_sum": 0,
    "aggregation_sum_plus": 256 * 256 + 256,
    "aggregation_concat": 1024 * 256 + 256,
    "pre_conv1x1": 256 * 256 + 256,
    "pre_conv3x3": 9 * 256 * 256 + 256,
    "pre_conv5x5": 1_638_656,
    "pre_non_local": 131_712,
    "pre_attention": 258_305,
    "post_conv1x1": 256 * 256 + 256,
    "post_conv3x3": 9 * 256 * 256 + 256,
    "post_conv5x5": 1_638_656,
    "post_non_local": 131_712,
    "post_attention": 258_305,
}


def _heads(cfg):
    strides = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
    return build_roi_heads(cfg, {n: ShapeSpec(channels=256, stride=s) for n, s in strides.items()})


@pytest.mark.parametrize("name, parameters", LEAVES.items())
def test_rows_of_the_ablation(root, name, parameters):
    cfg = load_config(str(root / f"projects/GRoIE/configs/{name}.yaml"))
    heads = _heads(cfg)
    assert cfg.SOLVER.MAX_ITER == 90_000 and not cfg.MODEL.MASK_ON and cfg.SEED == 0
    assert isinstance(heads.box_pooler, SegroiPooler)
    assert heads.box_pooler.extractor.sampling_ratio == 2
    assert sum(p.numel() for p in heads.box_pooler.parameters()) == parameters


def test_every_row_has_its_test(root):
    files = {path.stem for path in (root / "projects/GRoIE/configs").glob("*.yaml")}
    assert files == {*LEAVES, "Base-Ablation", "mask_rcnn"}


def test_mask_baseline(root):
    heads = _heads(load_config(str(root / "projects/GRoIE/configs/mask_rcnn.yaml")))
    assert not list(heads.box_pooler.parameters()) and not list(heads.mask_pooler.parameters())
    assert heads.mask_pooler.extractor.output_size == (14, 14)


@pytest.mark.parametrize("stem", STEMS)
def test_yaml_and_lazy_recipes_agree(root, stem):
    path = str(root / "configs/d2" / stem)
    cfg, lazy = load_config(f"{path}.yaml"), LazyConfig.load(f"{path}.py")
    schedule = {"1x": 90_000, "2x": 180_000, "3x": 270_000}[stem[-2:]]
    assert cfg.SOLVER.MAX_ITER == lazy.train.max_iter == schedule
    assert cfg.SOLVER.IMS_PER_BATCH == lazy.dataloader.train.total_batch_size == 16
    assert cfg.SOLVER.BASE_LR == lazy.optimizer.lr
    assert cfg.SOLVER.MOMENTUM == lazy.optimizer.momentum
    assert cfg.SOLVER.WEIGHT_DECAY == lazy.optimizer.weight_decay
    assert cfg.MODEL.WEIGHTS == lazy.train.init_checkpoint
    assert cfg.MODEL.MASK_ON == lazy.dataloader.train.mapper.use_instance_mask
    assert cfg.DATASETS.TRAIN[0] == lazy.dataloader.train.dataset.names
    theirs = build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1)], lr=1.0))._multiplier
    ours = instantiate(lazy.lr_multiplier)
    for step in (0, 1, 500, 999, 1000, *cfg.SOLVER.STEPS, cfg.SOLVER.STEPS[-1] - 1, schedule - 1):
        where = step / schedule
        assert ours(where) == pytest.approx(theirs(where), rel=1e-6), step


def test_parameters_of_the_full_model(root):
    lazy = LazyConfig.load(str(root / "configs/d2/mask_rcnn_groie_R_50_FPN_1x.py"))
    model = instantiate(lazy.model)
    count = sum(p.numel() for p in model.parameters())
    # Detectron2's Mask R-CNN R50-FPN and two extractors
    assert count == 44_343_216 + 2 * 1_896_961
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count - 222_400
