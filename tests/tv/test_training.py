from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import annotation, write
from torchvision.models import get_model

from segroi.tv.checkpoint import load_checkpoint, load_model
from segroi.tv.config import TrainConfig, load_config
from segroi.tv.engine import (
    FINAL,
    Trainer,
    build_optimizer,
    learning_rate,
)
from segroi.tv.models import build_model
from segroi.tv.postmortem import POSTMORTEM, TrainingStopped
from segroi.tv.run import read_rows
from segroi.utils.suggest import UsageError


def losses(output) -> list[dict[str, float]]:
    rows = read_rows(Path(output))
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]


def test_training_lowers_the_loss_and_stores_what_it_was(config):
    weights = Trainer(replace(config, iterations=25, schedule="constant")).run()
    rows = losses(config.output)
    assert [row["iteration"] for row in rows] == list(range(1, 26))
    first, last = (sum(r["loss"] for r in part) for part in (rows[:5], rows[-5:]))
    assert last < 0.7 * first
    model, info = load_model(weights)
    assert not model.training and "optimizer" not in info
    assert info["model"]["name"] == "mask_rcnn_groie" and info["iteration"] == 25
    assert [c["name"] for c in info["categories"]] == ["red", "green"]
    assert info["provenance"]["packages"]["torch"] == torch.__version__
    assert load_config(Path(config.output) / "config.yaml").to_dict() == info["config"]


def test_the_checkpoint_rebuilds_the_same_model(config, squares):
    trainer = Trainer(replace(config, iterations=2))
    model, _ = load_model(trainer.run())
    state = trainer.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    image = trainer.dataset[0][0]
    with torch.no_grad():
        ours, theirs = trainer.model.eval()([image])[0], model([image])[0]
    assert torch.equal(ours["boxes"], theirs["boxes"])


class Stop(Exception):
    pass


def test_resume_gives_the_losses_of_an_uninterrupted_run(config, tmp_path, monkeypatch):
    Trainer(config).run()
    other = replace(config, output=str(tmp_path / "stopped"))
    trainer = Trainer(other)
    step = trainer.step

    def stopping(batches):
        if trainer.iteration == 5:
            raise Stop
        return step(batches)

    trainer.step = stopping
    with pytest.raises(Stop):
        trainer.run()
    assert len(losses(other.output)) == 5, "one iteration was logged after the checkpoint at 4"
    resumed = Trainer(other, resume=True)
    assert resumed.iteration == 4
    resumed.run()
    assert losses(other.output) == losses(config.output)
    ours, theirs = (load_checkpoint(Path(o) / FINAL) for o in (other.output, config.output))
    for key, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], value), key


def test_workers_change_nothing(config, tmp_path):
    Trainer(replace(config, iterations=3)).run()
    other = replace(config, iterations=3, workers=2, output=str(tmp_path / "workers"))
    Trainer(other).run()
    assert losses(other.output) == losses(config.output)


def test_loss_that_is_not_finite_stops_with_a_postmortem(config):
    trainer = Trainer(config)
    step = trainer.step

    def poisoned(batches):
        if trainer.iteration == 3:
            batches = [([image * float("nan") for image in i], t) for i, t in batches]
        return step(batches)

    trainer.step = poisoned
    with pytest.raises(TrainingStopped, match="at iteration 3 .* is the last good checkpoint"):
        trainer.run()
    report = json.loads((Path(config.output) / POSTMORTEM).read_text())
    assert report["iteration"] == 3 and len(report["images"]) == 2
    assert report["parameters_not_finite"] == []
    assert report["images"][0]["file"].endswith(".png")
    kept = load_checkpoint(report["last_good_checkpoint"])
    assert kept["iteration"] == 2
    assert all(v.isfinite().all() for v in kept["state_dict"].values() if v.is_floating_point())


def test_wild_learning_rate_is_no_stack_trace(config):
    wild = replace(
        config,
        lr=9.9e11,
        schedule="constant",
        optimizer="sgd",
        warmup=0,
        clip_norm=0.0,
        iterations=20,
    )
    with pytest.raises(
        TrainingStopped, match=r"not finite at iteration \d .*learning rate 9\.9e\+11"
    ):
        Trainer(wild).run()


def test_a_run_is_not_overwritten_by_accident(config):
    Trainer(replace(config, iterations=2)).run()
    with pytest.raises(UsageError, match="holds a run already: --resume"):
        Trainer(config)
    changed = replace(config, model_args={**config.model_args, "channels": 24})
    with pytest.raises(UsageError, match="asked for is mask_rcnn_groie"):
        Trainer(changed, resume=True)


def test_nothing_to_learn_from(config, squares, tmp_path):
    images = [{"id": 1, "file_name": "1.png", "height": 64, "width": 80}]
    crowd = [annotation(1, 1, 5, [0, 0, 9, 9], iscrowd=1)]
    path = write(tmp_path / "crowd.json", images, crowd, [{"id": 5, "name": "x"}])
    with pytest.raises(UsageError, match="no instance to learn from"):
        Trainer(replace(config, data=str(path)))


def test_output_that_cannot_be_written(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        Trainer(replace(config, output=str(tmp_path / "file" / "run")))


def test_learning_rate_schedules():
    config = TrainConfig(iterations=100, warmup=10, lr=1.0, batch_size=4)
    assert learning_rate(config, 0) == pytest.approx(0.1, rel=0.01)
    assert learning_rate(config, 50) == pytest.approx(0.5)
    steps = replace(config, schedule="steps", steps=[0.5, 0.75])
    assert [round(learning_rate(steps, i), 6) for i in (49, 50, 75)] == [1.0, 0.1, 0.01]
    assert replace(config, lr=0.0).peak_lr() == pytest.approx(0.02 * 4 / 16)


def test_norms_and_biases_are_not_decayed(config):
    trainer = Trainer(config)
    decayed, free = build_optimizer(trainer.model, config).param_groups
    assert all(p.ndim > 1 for p in decayed["params"]) and free["weight_decay"] == 0
    count = sum(p.requires_grad for p in trainer.model.parameters())
    assert len(decayed["params"]) + len(free["params"]) == count


CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "tv").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[p.stem for p in CONFIGS])
def test_shipped_configs_load_and_their_models_build(path):
    config = load_config(path, data="d", images="i", output="o")
    config.check()
    with torch.device("meta"):
        build_model(config.model, 10, **config.model_args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: mask_rcnn", "unknown field 'modle': did you mean model"),
        ("iterations: many", "many"),
        ("x: [", "is no yaml"),
        ("model: !!python/object/apply:os.system ['touch canary']", "is no yaml"),
    ],
)
def test_bad_configs_are_told(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(tmp_path / "run.yaml")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "--model is missing"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"flip": 2.0}, r"flip in 0\.\.1"),
        ({"device": "gpu"}, "none that torch knows"),
        ({"data": "/nowhere/data.json"}, "does not exist"),
    ],
)
def test_bad_values_are_told(config, change, message):
    with pytest.raises(UsageError, match=message):
        Trainer(replace(config, **change))


def test_backbone_weights_are_loaded_frozen_and_remembered(config, tmp_path):
    network = get_model("mobilenet_v3_small", weights=None)
    torch.save(network.state_dict(), tmp_path / "imagenet.pth")
    arguments = {k: v for k, v in config.model_args.items() if k != "norm"}
    weights = str(tmp_path / "imagenet.pth")
    trainer = Trainer(replace(config, iterations=1, model_args=arguments, backbone_weights=weights))
    first = network.features[0][0].weight
    assert torch.equal(trainer.model.backbone.body["0"][0].weight, first)
    model, info = load_model(trainer.run())
    assert info["model"]["args"]["norm"] == "frozen" and info["model"]["args"]["frozen_stages"] == 1
    assert torch.equal(model.backbone.body["0"][0].weight, first), "the first stage is not trained"
