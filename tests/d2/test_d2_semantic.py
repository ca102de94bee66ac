from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.evaluation import SemSegEvaluator, inference_on_dataset
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model

from segroi.d2 import load_config
from segroi.d2.evaluation import build_evaluator
from segroi.d2.semantic import FCNDecoderHead, MobileNetV1Backbone, register_person_crops
from segroi.d2.solver import build_optimizer
from segroi.modeling.semantic.iou import ClassIoU
from segroi.modeling.semantic.low_cost import build_low_cost_segmenter
from segroi.utils.optim import TFRMSprop

FOLDER = Path(__file__).parents[2] / "projects/LowCostSemSeg/configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
COUNTS = {
    "mobilenet_base": 839_283,
    "mobilenet_fcn16": 849_942,
    "mobilenet_fcn8": 858_169,
    "mobilenet_stride16": 839_283,
    "mobilenet_stride8": 839_283,
    "squeezenet_base": 732_243,
    "squeezenet_fcn8": 740_470,
    "squeezenet_stride8": 732_243,
}


def build(name, *options):
    opts = ["MODEL.DEVICE", "cpu", *options]
    torch.manual_seed(0)
    return build_model(load_config(str(FOLDER / f"{name}.yaml"), opts))


def sample(size=(64, 96), num_classes=19):
    labels = torch.randint(0, num_classes, size)
    labels[:8] = 255
    image = torch.randint(0, 255, (3, *size), dtype=torch.uint8)
    return {"image": image, "sem_seg": labels, "height": 2 * size[0], "width": 2 * size[1]}


@pytest.fixture
def crops(tmp_path):
    """Two crops with a bright person in the middle, registered."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        label = np.zeros((64, 32), np.uint8)
        label[16:48, 8:24] = 1
        label[:4] = 255
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.dstack([label % 255 * 200] * 3))
        cv2.imwrite(str(tmp_path / "labels" / f"{name}.png"), label)
    index = {"size": [64, 32], "background": 0.0, "crops": ["a", "b"]}
    (tmp_path / "crops.json").write_text(json.dumps(index))
    register_person_crops("test_person_crops", tmp_path)
    yield "test_person_crops"
    DatasetCatalog.remove("test_person_crops")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_yaml_and_lazy_config_build_the_same_model(file):
    cfg = load_config(str(file), ["MODEL.DEVICE", "cpu"])
    lazy = LazyConfig.load(str(file.with_suffix(".py")))
    models = build_model(cfg), instantiate(lazy.model)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in models]
    assert shapes[0] == shapes[1]
    heads = [m.sem_seg_head for m in models]
    for name in ("in_features", "stride", "ignore_value", "loss_weight", "loss_reduction"):
        assert getattr(heads[0], name) == getattr(heads[1], name), name
    assert models[0].backbone.strides == models[1].backbone.strides
    assert cfg.SOLVER.MAX_ITER == lazy.train.max_iter
    assert cfg.SOLVER.IMS_PER_BATCH == lazy.dataloader.train.total_batch_size
    assert cfg.DATASETS.TRAIN[0] == lazy.dataloader.train.dataset.names
    ours = build_optimizer(cfg, models[0])
    lazy.optimizer.params.model = models[1]
    theirs = instantiate(lazy.optimizer)
    assert isinstance(ours, TFRMSprop)
    keys = ("lr", "decay", "eps", "momentum", "weight_decay")
    assert [ours.defaults[k] for k in keys] == [theirs.defaults[k] for k in keys]


@pytest.mark.parametrize(("name", "expected"), COUNTS.items())
def test_parameters_of_table_4_2(name, expected):
    model = build(name)
    statistics = [v for k, v in model.backbone.named_buffers() if "num_batches" not in k]
    assert sum(v.numel() for v in [*model.parameters(), *statistics]) == expected


@pytest.mark.parametrize("name", [*COUNTS, "squeezenet_fcn4", "person_fcn8"])
def test_train_step_and_prediction(name):
    model = build(name).train()
    classes = model.sem_seg_head.score.out_channels
    batch = [sample((64, 96), classes), sample((50, 70), classes)]
    losses = model(batch)
    losses["loss_sem_seg"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        outputs = model.eval()(batch)
    assert [o["sem_seg"].shape for o in outputs] == [(classes, 128, 192), (classes, 100, 140)]


def test_agrees_with_the_model_outside_detectron2():
    hosted = build("mobilenet_fcn8").eval()
    alone = build_low_cost_segmenter(steps=2, depth_multiplier=0.5).eval()
    alone.load_state_dict(hosted.state_dict())
    one = sample()
    one["height"], one["width"] = one["image"].shape[-2:]
    with torch.no_grad():
        expected = alone((one["image"][None] - hosted.pixel_mean) / hosted.pixel_std)[0]
        torch.testing.assert_close(hosted([one])[0]["sem_seg"], expected)


def test_padding_of_a_batch_is_not_trained_on():
    model = build("mobilenet_base").train()
    small, large = sample((32, 32)), sample((96, 96))
    large["sem_seg"][:] = 255
    alone, padded = model([small])["loss_sem_seg"], model([small, large])["loss_sem_seg"]
    assert alone > 0 and padded < alone  # halved by the number of images, no new pixels


def test_frozen_statistics_survive_train():
    norms = [m for m in build("mobilenet_base").train().modules() if hasattr(m, "running_var")]
    assert norms and not any(m.training for m in norms)
    learning = build("mobilenet_base", "MODEL.LOW_COST.FROZEN_STATISTICS", "False").train()
    assert all(m.training for m in learning.modules() if hasattr(m, "running_var"))


def test_training_on_crops_and_their_evaluation(crops, tmp_path):
    options = ["DATASETS.TEST", (crops,), "OUTPUT_DIR", str(tmp_path), "SOLVER.BASE_LR", 3e-3]
    cfg = load_config(str(FOLDER / "person_fcn8.yaml"), ["MODEL.DEVICE", "cpu", *options])
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    mapper = DatasetMapper(cfg, is_train=True)
    assert [type(a).__name__ for a in mapper.augmentations.augs] == [
        "ResizeShortestEdge",
        "RandomFlip",
    ]
    batch = [mapper(d) for d in get_detection_dataset_dicts(crops)]
    assert batch[0]["image"].shape == (3, 64, 32) and batch[0]["sem_seg"].unique().numel() == 3
    for _ in range(75):
        optimizer.zero_grad()
        model(batch)["loss_sem_seg"].backward()
        optimizer.step()
    loader = build_detection_test_loader(cfg, crops, num_workers=0)
    results = inference_on_dataset(model, loader, build_evaluator(cfg, crops))
    assert results["sem_seg"]["IoU-person"] > 70


def test_unknown_optimizer():
    cfg = load_config(str(FOLDER / "person_base.yaml"), ["SOLVER.OPTIMIZER", "Adagrad"])
    with pytest.raises(ValueError, match="must be SGD, AdamW or TFRMSprop"):
        build_optimizer(cfg, torch.nn.Linear(1, 1))


def test_sgd_is_detectron2s():
    cfg = load_config("")
    assert isinstance(build_optimizer(cfg, torch.nn.Linear(1, 1)), torch.optim.SGD)


def test_strides_must_double():
    shapes = MobileNetV1Backbone(output_stride=8).output_shape()
    with pytest.raises(ValueError, match="must double"):
        FCNDecoderHead(shapes, num_classes=2)
    assert shapes["conv13"] == ShapeSpec(channels=1024, stride=8)


def test_scores_are_those_of_detectron2s_evaluator(tmp_path):
    """Class 2 is never labelled, class 1 never found."""
    rng = np.random.default_rng(0)
    records, counts = [], ClassIoU(4)
    for number in range(3):
        labels = rng.choice([0, 1, 3, 255], (20, 30)).astype(np.uint8)
        file = tmp_path / f"{number}.png"
        cv2.imwrite(str(file), labels)
        found = torch.from_numpy(np.where(labels == 1, 2, rng.choice([0, 2, 3], (20, 30))))
        records.append(({"file_name": str(number), "sem_seg_file_name": str(file)}, found))
        counts.update(found, torch.from_numpy(labels).long())
    name = f"semantic {tmp_path}"
    DatasetCatalog.register(name, lambda: [record for record, _ in records])
    MetadataCatalog.get(name).set(stuff_classes=list("abcd"), ignore_label=255)
    evaluator = SemSegEvaluator(name, distributed=False)
    evaluator.reset()
    for record, found in records:
        logits = torch.nn.functional.one_hot(found, 4).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": logits}])
    theirs = evaluator.evaluate()["sem_seg"]
    for metric, value in counts.scores().items():
        assert 100 * value == pytest.approx(theirs[metric]), metric
    assert 100 * counts.compute()[0].item() == pytest.approx(theirs["IoU-a"])
