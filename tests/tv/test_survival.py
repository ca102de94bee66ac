"""Runs that are killed, stopped, starved of disk or memory, or that meet another one."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segroi.cli.main import main
from segroi.tv.checkpoint import load_checkpoint, save_checkpoint
from segroi.tv.data import CocoDataset
from segroi.tv.engine import FINAL, LAST, METRICS, PREVIOUS, Trainer
from segroi.tv.postmortem import POSTMORTEM, REPLAY, TrainingStopped, replay
from segroi.tv.run import train
from segroi.utils.run_folder import run_folder
from segroi.utils.stop_signal import STATUS
from segroi.utils.suggest import UsageError

FORK = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked here")
# Children of a server that has imported everything and computed nothing: quick and clean.
SERVER = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None
if SERVER:
    SERVER.set_forkserver_preload(["segroi.tv.run"])


def losses(output) -> list[dict[str, float]]:
    rows = map(json.loads, (Path(output) / METRICS).read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


def logged(output) -> int:
    path = Path(output) / METRICS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def in_a_process(function, *arguments):
    child = SERVER.Process(target=function, args=arguments)
    child.start()
    return child


def go_on(config, slow_disk=0.0):
    torch.set_num_threads(1)
    sync = os.fsync
    os.fsync = lambda number: (time.sleep(slow_disk), sync(number))
    Trainer(config, resume=True).run()


@FORK
def test_killed_again_and_again_it_computes_the_same(config, tmp_path):
    whole = replace(config, iterations=12, checkpoint_every=1)
    reference = in_a_process(go_on, whole)
    reference.join(120)
    assert reference.exitcode == 0
    killed = replace(whole, output=str(tmp_path / "killed"))
    moments, kills = random.Random(0), 0
    for _ in range(40):
        before = logged(killed.output)
        child = in_a_process(go_on, killed, 0.03)  # half of the time goes into checkpoints
        while child.is_alive() and logged(killed.output) <= before:
            time.sleep(0.005)
        child.join(moments.uniform(0, 0.06))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    else:
        go_on(killed)
    assert kills >= 3
    assert losses(killed.output) == losses(whole.output)
    ours, theirs = (load_checkpoint(Path(o) / FINAL) for o in (killed.output, whole.output))
    for key, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], value), key


def signalled(trainer, iteration):
    step = trainer.step

    def stepping(batches):
        if trainer.iteration == iteration:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batches)

    trainer.step = stepping
    return trainer


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_saves_and_stops(config, tmp_path, workers):
    config = replace(config, checkpoint_every=100, workers=workers)
    Trainer(config).run()
    other = replace(config, output=str(tmp_path / "stopped"))
    with pytest.raises(TrainingStopped, match="SIGTERM after iteration 4; --resume") as stopped:
        signalled(Trainer(other), 3).run()
    assert stopped.value.status == STATUS
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = Trainer(other, resume=True)
    assert resumed.iteration == 4
    resumed.run()
    assert losses(other.output) == losses(config.output)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_last_checkpoint(config, monkeypatch):
    trainer = Trainer(config)
    save = trainer.save

    def saving(name, **options):
        if trainer.iteration == 4:
            monkeypatch.setattr(os, "fsync", full)
        return save(name, **options)

    trainer.save = saving
    with pytest.raises(UsageError, match="No space left on device .the previous file is unharmed"):
        trainer.run()
    monkeypatch.undo()
    assert [p.name for p in Path(config.output).glob(".*.part")] == []
    assert Trainer(config, resume=True).iteration == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_stops_the_run(config, monkeypatch):
    opened = Path.open

    def on_a_full_disk(path, *arguments, **options):
        target = Path("/dev/full") if path.name == METRICS else path
        return opened(target, *arguments, **options)

    trainer = Trainer(config)
    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with pytest.raises(TrainingStopped, match="cannot be written: .*No space left on device"):
        trainer.run()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write")
def test_a_folder_that_cannot_be_written(config):
    with pytest.raises(UsageError, match="output folder /proc/run cannot be written"):
        train(replace(config, output="/proc/run"))


def hold(folder):
    with run_folder(folder):
        time.sleep(60)


@FORK
def test_one_live_run_in_a_folder(config):
    child = in_a_process(hold, config.output)
    lock = Path(config.output) / ".lock"
    while not lock.exists() or not lock.read_text():
        time.sleep(0.01)
    with pytest.raises(UsageError, match=f"is that of a live run .process {child.pid} on"):
        train(config, resume=True)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert train(replace(config, iterations=1)).exists(), "a dead run holds nothing"


@pytest.mark.parametrize("damage", ["truncated", "not finite"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(config, capsys, damage):
    Trainer(config).run()
    last = Path(config.output) / LAST
    if damage == "truncated":
        os.truncate(last, last.stat().st_size // 2)
    else:
        content = load_checkpoint(last)
        content["state_dict"]["rpn.head.cls_logits.bias"][0] = float("nan")
        save_checkpoint(last, content)
    trainer = Trainer(config, resume=True)
    assert trainer.iteration == 4
    assert f"going on from {Path(config.output) / PREVIOUS}" in capsys.readouterr().err
    os.truncate(Path(config.output) / PREVIOUS, 10)
    last.unlink()
    with pytest.raises(UsageError, match="cannot be read.*start anew in another --output"):
        Trainer(config, resume=True)


def test_what_a_resumed_run_does_differently_is_told(config, capsys):
    Trainer(config).run()
    Trainer(replace(config, lr=1e-4, workers=1, iterations=9), resume=True)
    told = capsys.readouterr().err.replace("\n", " ")
    assert "resumed with other settings than before: iterations, lr" in told
    with pytest.raises(UsageError, match="no state for the optimizer sgd .its own is adamw"):
        Trainer(replace(config, optimizer="sgd"), resume=True)
    for name in (LAST, PREVIOUS):
        content = load_checkpoint(Path(config.output) / name)
        save_checkpoint(Path(config.output) / name, content | {"optimizer": {"state": 3}})
    with pytest.raises(UsageError, match="optimizer's state is damaged"):
        Trainer(config, resume=True)


def test_the_layer_that_makes_the_first_bad_number_is_named(config, capsys):
    trainer = Trainer(config)
    step = trainer.step

    def poisoned(batches):
        if trainer.iteration == 3:
            with torch.no_grad():
                trainer.model.roi_heads.box_predictor.cls_score.weight[0, 0] = float("inf")
        return step(batches)

    trainer.step = poisoned
    with pytest.raises(TrainingStopped, match=r"box_predictor.cls_score \(Linear\): its weights"):
        trainer.run()
    report = json.loads((Path(config.output) / POSTMORTEM).read_text())
    assert report["first_not_finite"] == {
        "module": "roi_heads.box_predictor.cls_score",
        "kind": "Linear",
        "inputs_finite": True,
        "parameters_finite": False,
    }
    assert report["parameters_not_finite"] == ["roi_heads.box_predictor.cls_score.weight"]
    assert len(report["images"]) == 2 and len(report["images"][0]["boxes"]) == 2
    assert report["reproduce"] == f"segroi train --replay {Path(config.output) / REPLAY}"
    assert "box_predictor.cls_score (Linear)" in replay(Path(config.output) / REPLAY)
    capsys.readouterr()
    assert main(report["reproduce"].split()[1:]) == 0
    assert "box_predictor.cls_score (Linear)" in capsys.readouterr().out
    with pytest.raises(UsageError, match="is no post-mortem"):
        replay(report["last_good_checkpoint"])


def test_a_gradient_that_is_not_finite(config):
    trainer = Trainer(config)
    weight = trainer.model.rpn.head.cls_logits.weight
    weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(TrainingStopped, match="the gradient is not finite at iteration 0"):
        trainer.run()
    report = json.loads((Path(config.output) / POSTMORTEM).read_text())
    assert report["gradients_not_finite"] == ["rpn.head.cls_logits.weight"]
    assert report["first_not_finite"] == {"gradient": "rpn.head.cls_logits.weight"}
    assert report["last_good_checkpoint"] is None


def test_weights_that_are_not_finite_are_not_saved(config):
    trainer = Trainer(config)
    trainer.run()
    before = (trainer.output / LAST).read_bytes()
    trainer.model.rpn.head.cls_logits.bias.data[0] = float("nan")
    with pytest.raises(TrainingStopped, match="rpn.head.cls_logits.bias.*last good checkpoint"):
        trainer.save(LAST)
    assert (trainer.output / LAST).read_bytes() == before


@FORK
def test_a_killed_reader_of_images(config, monkeypatch):
    monkeypatch.setattr(CocoDataset, "__getitem__", lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(TrainingStopped, match="process that reads images ended.*Try --workers 0"):
        Trainer(replace(config, workers=1)).run()


def test_no_memory_left(config):
    trainer = Trainer(config)

    def starved(_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nMore")

    trainer.step = starved
    told = "Tried to allocate 9.00 GiB.. Try --batch-size 1 with accumulate=2, or a smaller --size"
    with pytest.raises(TrainingStopped, match=told):
        trainer.run()


def test_other_errors_keep_their_traceback(config):
    trainer = Trainer(config)

    def broken(_):
        raise RuntimeError("a mistake of ours")

    trainer.step = broken
    with pytest.raises(RuntimeError, match="a mistake of ours") as error:
        trainer.run()
    assert not isinstance(error.value, TrainingStopped)


def test_broken_data_is_refused_unless_the_check_is_skipped(config, squares, tmp_path):
    data = json.loads((squares / "data.json").read_text())
    data["images"].append({**data["images"][0], "id": 77, "file_name": "missing.png"})
    (tmp_path / "data.json").write_text(json.dumps(data))
    config = replace(config, data=str(tmp_path / "data.json"), iterations=1, batch_size=1)
    with pytest.raises(UsageError, match="image-missing: image 77: missing.png(.|\n)*--no-data-ch"):
        train(config)
    assert not Path(config.output).exists()
    assert train(config, check=False).exists()
