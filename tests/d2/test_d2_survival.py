"""Runs of the launchers that are stopped, fill the disk, diverge, or meet another one."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from segroi.d2.checkpoint import SafeCheckpointer
from segroi.d2.launch import argument_parser
from segroi.d2.postmortem import POSTMORTEM, REPLAY, TrainingDiverged, replay
from segroi.d2.survival import StopOnSigterm, surviving_run
from segroi.utils.run_folder import run_folder
from segroi.utils.stop_signal import STATUS
from segroi.utils.suggest import UsageError


class Model(nn.Module):
    """Takes Detectron2's list of dicts; the loss of the third iteration on is ``wrong``."""

    def __init__(self, wrong: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)
        self.wrong, self.calls = wrong, 0

    def forward(self, batch):
        self.calls += 1
        factor = self.wrong if self.calls >= 3 else 1.0
        return {"loss_head": self.head(self.layer(batch[0]["image"]) * factor).sum()}


def trainer_of(model, folder, **reading):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data = [[{"image": torch.ones(3, 2), "file_name": "a.png"}]] * 50
    trainer = SimpleTrainer(model, data, optimizer)
    return trainer, SafeCheckpointer(model, str(folder), trainer=trainer, **reading)


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path, monkeypatch):
    _, checkpointer = trainer_of(Model(), tmp_path)
    checkpointer.save("model_0000000")
    before = (tmp_path / "model_0000000.pth").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device .*previous file is unharmed"):
        checkpointer.save("model_0000000")
    assert (tmp_path / "model_0000000.pth").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"model_0000000.pth", "last_checkpoint"}


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    model = Model()
    _, checkpointer = trainer_of(model, tmp_path)
    checkpointer.save("model_0000001", iteration=1)
    os.utime(tmp_path / "model_0000001.pth", (1, 1))
    weight = model.head.weight.detach().clone()
    nn.init.zeros_(model.head.weight)
    checkpointer.save("model_0000002", iteration=2)
    last = tmp_path / "model_0000002.pth"
    os.truncate(last, last.stat().st_size // 2)
    trainer, checkpointer = trainer_of(Model(), tmp_path)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
    assert torch.equal(trainer.model.head.weight, weight)
    os.truncate(tmp_path / "model_0000001.pth", 10)
    with pytest.raises(UsageError, match="no checkpoint that can be read .tried model_0000002"):
        trainer_of(Model(), tmp_path)[1].resume_or_load("", resume=True)


def test_sigterm_saves_and_ends(tmp_path):
    model = Model()
    trainer, checkpointer = trainer_of(model, tmp_path)
    trainer.register_hooks([StopOnSigterm(checkpointer)])
    forward = model.forward

    def signalled(batch):
        if model.calls == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(batch)

    model.forward = signalled
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        trainer.train(0, 50)
    assert stopped.value.code == STATUS == 143
    assert signal.getsignal(signal.SIGTERM) is before
    del model.forward
    resumed, checkpointer = trainer_of(Model(), tmp_path)
    checkpointer.resume_or_load("", resume=True)
    assert resumed.iter == 4 and torch.equal(resumed.model.head.weight, model.head.weight)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_divergence_is_explained(tmp_path, wrong):
    trainer, checkpointer = trainer_of(Model(wrong), tmp_path)
    checkpointer.save("model_0000001")
    with pytest.raises(TrainingDiverged) as error, surviving_run(trainer.model, tmp_path):
        trainer.train(0, 50)
    text = str(error.value)
    assert "iteration=2" in text and "The first output that is not finite is head (Linear)" in text
    assert "a.png" in text and "model_0000001.pth is the last checkpoint" in text
    report = json.loads((tmp_path / POSTMORTEM).read_text())
    assert report["first_not_finite"] == {
        "module": "head",
        "kind": "Linear",
        "inputs_finite": False,
        "parameters_finite": True,
    }
    assert json.loads((tmp_path / "provenance.json").read_text())["packages"]["detectron2"]
    stored = torch.load(tmp_path / REPLAY, weights_only=True)
    assert stored["batch"][0]["file_name"] == "a.png"
    assert torch.equal(stored["model"]["head.weight"], trainer.model.head.weight)


def test_one_live_run_in_a_folder(tmp_path):
    with run_folder(tmp_path), pytest.raises(UsageError, match=f"live run .process {os.getpid()}"):
        with surviving_run(Model(), tmp_path):
            pass
    with surviving_run(Model(), tmp_path):
        pass


def test_a_launcher_that_diverges_can_be_replayed(root, digits, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "scripts"))
    launcher = importlib.import_module("train_net")
    words = ["--config-file", str(root / "configs/quick/mask_rcnn_groie_digits.yaml")]
    words += ["--num-gpus", "0", "--data-json", str(digits / "train.json")]
    words += ["--images", str(digits / "images"), "OUTPUT_DIR", str(tmp_path)]
    words += [
        "SOLVER.IMS_PER_BATCH",
        "2",
        "INPUT.MIN_SIZE_TRAIN",
        "(96,)",
        "SOLVER.BASE_LR",
        "1e20",
    ]
    words += ["SOLVER.WARMUP_ITERS", "0", "SOLVER.MAX_ITER", "9", "DATALOADER.NUM_WORKERS", "0"]
    with pytest.raises(TrainingDiverged, match="Images: .*train_.*once more: python scripts"):
        launcher.main(argument_parser().parse_args(words))
    report = json.loads((tmp_path / POSTMORTEM).read_text())
    assert len(report["images"]) == 2 and report["images"][0]["boxes"]
    again = replay(tmp_path / REPLAY)
    assert report["first_not_finite"]["module"] in again

    command = report["reproduce"].split()
    done = subprocess.run(
        [sys.executable, str(root / command[1]), *command[2:]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0 and again.splitlines()[-1] in done.stdout, done.stderr[-500:]


def test_broken_data_does_not_reach_the_launcher(root, digits, tmp_path):
    data = json.loads((digits / "train.json").read_text())
    data["annotations"][0]["category_id"] = 99
    (tmp_path / "train.json").write_text(json.dumps(data))
    words = ["--config-file", str(root / "configs/quick/mask_rcnn_groie_digits.yaml")]
    words += ["--num-gpus", "0", "--data-json", str(tmp_path / "train.json")]
    done = subprocess.run(
        [
            sys.executable,
            str(root / "scripts/train_net.py"),
            *words,
            "--images",
            f"{digits}/images",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "annotation-category" in done.stderr and "--no-data-check" in done.stderr
    assert not Path(tmp_path / "output").exists()
