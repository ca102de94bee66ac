"""SSD-ISB in the torchvision host: arguments, ImageNet weights, a whole run, thesis's recipe."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import TINY_SSD_ISB

from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1
from segroi.modeling.ssd.ssd_isb import ssd_isb
from segroi.tv.checkpoint import load_model
from segroi.tv.config import load_config
from segroi.tv.data import CocoDataset
from segroi.tv.engine import Trainer, build_optimizer, learning_rate
from segroi.tv.evaluate import detect, to_results
from segroi.tv.models import build_model
from segroi.tv.predict import predict_files
from segroi.tv.run import evaluate_file, train
from segroi.tv.ssd_isb import load_mobilenet_v1
from segroi.utils.optim import TFRMSprop
from segroi.utils.suggest import UsageError

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "tv").glob("ssd_isb_*.yaml"))


@pytest.fixture
def run_config(config):
    return replace(config, model="ssd_isb", model_args=dict(TINY_SSD_ISB), clip_norm=0.0)


def timm_name(key):
    """timm's name of a tensor of our MobileNet-v1."""
    _, block, module, rest = key.split(".", 3)
    if block == "0":
        return f"{('conv_stem', 'bn1')[int(module)]}.{rest}"
    ends = (1, 3, 5, 11, 13)
    stage = next(s for s, end in enumerate(ends) if int(block) <= end)
    place = int(block) - (0, *ends)[stage] - 1
    module = {"0": "conv_dw", "1": "bn1", "3": "conv_pw", "4": "bn2"}[module]
    return f"blocks.{stage}.{place}.{module}.{rest}"


def test_names_are_those_of_the_core_model():
    ours = build_model("ssd_isb", 2, depth_multiplier=0.25, size=(64, 96), class_masks=True)
    core = ssd_isb(2, depth_multiplier=0.25, class_masks=True)
    assert ours.state_dict().keys() == core.state_dict().keys()
    assert ours.image_size == (64, 96)
    assert build_model("ssd_isb", 1, mask_weight=7.0).branches.family.mask_weight == 7
    single = build_model("ssd_isb_single_branch", 1, depth_multiplier=0.25)
    assert len(single.branches.branches) == 1


@pytest.mark.parametrize("names", ["ours", "module", "timm", "wrapped"])
def test_imagenet_weights_of_several_layouts(names, tmp_path):
    source = MobileNetV1(0.25)
    state = {k: torch.randn_like(v) if v.ndim else v for k, v in source.state_dict().items()}
    rename = {"timm": timm_name, "module": lambda key: f"module.{key}"}.get(names, str)
    stored = {rename(k): v for k, v in state.items()} | {"classifier.weight": torch.ones(3)}
    torch.save({"state_dict": stored} if names == "wrapped" else stored, tmp_path / "w.pth")
    model = build_model("ssd_isb", 1, depth_multiplier=0.25)
    load_mobilenet_v1(model.backbone, tmp_path / "w.pth")
    loaded = model.backbone.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


def test_other_weights_are_refused(tmp_path):
    backbone = MobileNetV1(0.25)
    torch.save(MobileNetV1(0.5).state_dict(), tmp_path / "half.pth")
    with pytest.raises(UsageError, match="of another network: .* of another shape"):
        load_mobilenet_v1(backbone, tmp_path / "half.pth")
    torch.save({"features.0.weight": torch.ones(2)}, tmp_path / "vgg.pth")
    with pytest.raises(UsageError, match="of another network: .* missing"):
        load_mobilenet_v1(backbone, tmp_path / "vgg.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="hold no tensors by name"):
        load_mobilenet_v1(backbone, tmp_path / "list.pth")


def test_frozen_stages_and_statistics():
    model = build_model("ssd_isb", 1, **TINY_SSD_ISB, norm="frozen", frozen_stages=2).train()
    blocks = model.backbone.model
    trained = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    assert trained == [False] * 6 + [True] * 8
    before = {k: v.clone() for k, v in model.named_buffers()}
    model([torch.rand(3, 64, 64)] * 2, [empty(), empty()])
    changed = {k for k, v in model.named_buffers() if not torch.equal(v, before[k])}
    assert changed and not any("backbone" in k for k in changed)


def empty():
    return {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 64),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "multi_shap"}, "did you mean multi_shape"),
        ({"norm": "froze"}, "did you mean frozen"),
        ({"size": 100}, "multiples of 32"),
        ({"frozen_stages": 5}, "0 to 4"),
        ({"atrous_rates": [1, 2]}, "10 numbers"),
        ({"classification": "focal"}, "softmax or sigmoid"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(UsageError, match=message):
        build_model("ssd_isb", 1, depth_multiplier=0.25, **arguments)


def test_trains_evaluates_and_predicts(run_config, squares, tmp_path):
    data = {"val_data": run_config.data, "val_images": run_config.images}
    weights = train(replace(run_config, **data))
    numbers = json.loads((weights.parent / "evaluation.json").read_text())
    assert set(numbers) == {"box", "mask"}
    again = evaluate_file(weights, run_config.data, run_config.images, tmp_path / "again", "cpu")
    assert again == numbers
    model, info = load_model(weights, size=96)
    assert model.image_size == (96, 96)
    files = sorted((squares / "images").glob("*.png"))[:2]
    entries = predict_files(model, info["categories"], files, tmp_path / "out", 0.0)
    assert all(len(i["region"]) == 4 for entry in entries for i in entry["instances"])
    assert sum(len(entry["instances"]) for entry in entries) > 0


def test_masks_of_detections_lie_in_their_regions(squares):
    """A mask may leave its box but not its encompassing box."""
    torch.manual_seed(0)
    dataset = CocoDataset(squares / "data.json", squares / "images")
    model = build_model("ssd_isb", 2, **{**TINY_SSD_ISB, "size": 96}).eval()
    for branch in model.branches.branches:
        torch.nn.init.constant_(branch.score.bias, 1e3)  # every mask fills its region
    image, _ = dataset[0]
    (found,) = detect(model, [image])
    assert len(found["boxes"])
    left_box = 0
    for box, region, mask, result in zip(
        found["boxes"], found["regions"], found["masks"], to_results(found, 1, dataset)
    ):
        y, x = mask.nonzero().T
        assert (x.min() >= region[0] - 0.5) and (x.max() + 1 <= region[2] + 0.5)
        assert (y.min() >= region[1] - 0.5) and (y.max() + 1 <= region[3] + 0.5)
        left_box += int(x.max() + 1 > box[2] + 1 or y.max() + 1 > box[3] + 1)
        assert result["segmentation"]["size"] == list(image.shape[1:])
    assert left_box


def test_accumulated_batches_are_one_large_batch(run_config):
    run_config = replace(
        run_config,
        model_args={**TINY_SSD_ISB, "norm": "frozen"},
        optimizer="sgd",
        lr=0.01,
        warmup=0,
        flip=0.0,
    )
    trainers = []
    for accumulate in (1, 3):
        config = replace(
            run_config, accumulate=accumulate, output=f"{run_config.output}{accumulate}"
        )
        trainers.append(Trainer(config))
        trainers[-1].model.detector.extras.eval()
        for parameter in trainers[-1].model.branches.parameters():
            parameter.requires_grad_(False)
    one, three = trainers
    batch = next(one._batches())
    losses = one.step([batch])
    again = three.step([batch] * 3)
    assert losses == pytest.approx(again, rel=1e-4)
    for ours, theirs in zip(one.model.parameters(), three.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_an_iteration_reads_all_its_batches(run_config):
    config = replace(run_config, accumulate=2, iterations=3)
    trainer = Trainer(config)
    seen = []
    trainer.step = lambda batches: seen.append([len(images) for images, _ in batches]) or {}
    trainer.run()
    assert seen == [[2, 2]] * 3
    trainer.iteration = 2
    assert len(list(trainer._batches())) == 2


def test_the_recipe_of_the_thesis(run_config):
    config = replace(
        run_config, optimizer="tf_rmsprop", schedule="exponential", lr=0.0, warmup=0, accumulate=4
    )
    optimizer = build_optimizer(torch.nn.Conv2d(1, 1, 1), config)
    assert isinstance(optimizer, TFRMSprop)
    assert optimizer.param_groups[0]["lr"] == 4e-5 and optimizer.param_groups[0]["eps"] == 1.0
    rates = [learning_rate(config, i) for i in (0, 9_999, 10_000, 25_000)]
    assert rates == pytest.approx([4e-5, 4e-5, 3e-5, 4e-5 * 0.75**2])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_build(path):
    config = load_config(path, data="d", images="i", output="o")
    config.check()
    with torch.device("meta"):
        model = build_model(config.model, 1, **config.model_args)
    in_name = re.findall(r"_(\d+)", path.stem)
    assert in_name in ([], [str(model.image_size[0])])


def test_the_640_px_config_is_the_thesis():
    config = load_config(next(p for p in CONFIGS if "640" in p.stem))
    assert config.batch_size * config.accumulate == 24 and config.optimizer == "tf_rmsprop"
    assert config.iterations == 150_000 and config.decay_rate == 0.75
