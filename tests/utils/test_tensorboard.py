from __future__ import annotations

import importlib.util

import pytest

from segroi.utils.tensorboard import scalar_events


def test_events_are_those_of_a_run_that_was_resumed(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (segroi[tensorboard])")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with scalar_events(tmp_path) as note:
        for iteration in (1, 2, 3):  # killed; the checkpoint is of iteration 2
            note(iteration, {"loss": 1.0 / iteration, "lr": 0.1})
    with scalar_events(tmp_path, done=2) as note:
        note(3, {"loss": 0.25, "lr": 0.2})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert events.Scalars("lr")[-1].value == pytest.approx(0.2)


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find(name)
    )
    with scalar_events(tmp_path) as note:
        note(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []
