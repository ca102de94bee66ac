"""Every quick config takes a training step and predicts; its yaml and lazy forms agree."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import build_detection_train_loader
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from segroi.d2 import load_config
from segroi.d2.data import register_coco_json
from segroi.d2.solver import build_optimizer

QUICK = Path(__file__).resolve().parents[2] / "configs/quick"
FILES = sorted(p.name for p in QUICK.glob("*_*.*"))
PAIRS = sorted(p.stem for p in QUICK.glob("*.py") if p.with_suffix(".yaml").exists())


def _yacs(name):
    cfg = load_config(str(QUICK / name))
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    cfg.SOLVER.IMS_PER_BATCH = 2
    return cfg


def _model_and_batch(name, digits):
    """The model of a config, and two small images of the digits as it reads them."""
    dataset = register_coco_json(str(digits / "train.json"), str(digits / "images"))
    if name.endswith(".yaml"):
        cfg = _yacs(name)
        cfg.DATASETS.TRAIN = (dataset,)
        return build_model(cfg), next(iter(build_detection_train_loader(cfg)))
    cfg = LazyConfig.load(str(QUICK / name))
    cfg.dataloader.train.dataset.names = dataset
    cfg.dataloader.train.total_batch_size = 2
    cfg.dataloader.train.mapper.augmentations[0].short_edge_length = 96
    return instantiate(cfg.model), next(iter(instantiate(cfg.dataloader.train)))


@pytest.mark.parametrize("name", FILES)
def test_a_training_step(name, digits):
    torch.manual_seed(0)
    model, batch = _model_and_batch(name, digits)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    with EventStorage():
        losses = model(batch)
        sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    optimizer.step()
    for module in model.modules():  # so that there are detections
        if hasattr(module, "test_score_thresh"):
            module.test_score_thresh = 0.0
    with torch.no_grad():
        found = model.eval()(batch)
    assert len(found) == 2
    for output in found:
        boxes = output["instances"].pred_boxes.tensor
        assert len(boxes) and torch.isfinite(boxes).all()


@pytest.mark.parametrize("stem", PAIRS)
def test_yaml_and_lazy_models_agree(stem):
    yacs = build_model(_yacs(f"{stem}.yaml"))
    lazy = instantiate(LazyConfig.load(str(QUICK / f"{stem}.py")).model)
    ours, theirs = lazy.state_dict(), yacs.state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_adamw_is_the_optimizer_of_both_forms():
    cfg = _yacs("mask_rcnn_groie_digits.yaml")
    lazy = LazyConfig.load(str(QUICK / "mask_rcnn_groie_digits.py"))
    lazy.optimizer.params.model = torch.nn.Sequential(
        torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)
    )
    ours, theirs = instantiate(lazy.optimizer), build_optimizer(cfg, lazy.optimizer.params.model)
    assert type(ours) is type(theirs) is torch.optim.AdamW
    for one, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert (one["lr"], one["weight_decay"]) == (other["lr"], other["weight_decay"])


def test_large_kernels_of_small_sbr_cnn_learn_slowly():
    cfg = LazyConfig.load(str(QUICK / "sbr_cnn_small.py"))
    cfg.optimizer.params.model = model = instantiate(cfg.model)
    rates = {p: g["lr"] for g in instantiate(cfg.optimizer).param_groups for p in g["params"]}
    slow = {n for n, p in model.named_parameters() if p in rates and rates[p] < cfg.optimizer.lr}
    large = {n for n, p in model.named_parameters() if p.dim() == 4 and max(p.shape[2:]) == 7}
    assert large and large <= slow
    assert not any(n.startswith(("backbone", "roi_heads.mask_head")) for n in slow)
