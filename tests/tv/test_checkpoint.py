from __future__ import annotations

import os
import pickle

import pytest
import torch
from tiny_run import TINY

from segroi.tv.checkpoint import describe, load_model, save_checkpoint
from segroi.tv.models import build_model
from segroi.utils.suggest import UsageError

CATEGORIES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]


@pytest.fixture
def saved(tmp_path):
    model = build_model("mask_rcnn", 2, **TINY)
    content = {**describe("mask_rcnn", CATEGORIES, TINY), "state_dict": model.state_dict()}
    save_checkpoint(tmp_path / "weights.pth", content)
    return tmp_path / "weights.pth", content


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    path, content = saved
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device .*previous file is unharmed"):
        save_checkpoint(path, {**content, "iteration": 9})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["weights.pth"], "no draft is left"


class Evil:
    def __reduce__(self):
        return os.system, ("touch canary",)


def test_code_in_a_weights_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "segroi-weights-1", "model": Evil()}, "evil.pth")

    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pth", "plain.pkl"):
        with pytest.raises(UsageError, match="cannot be read"):
            load_model(tmp_path / name)
    assert not (tmp_path / "canary").exists()


def test_damaged_or_foreign_files_are_told(saved):
    path, _ = saved
    path.with_name("half.pth").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    torch.save({"conv.weight": torch.ones(1)}, path.with_name("other.pth"))
    with pytest.raises(UsageError, match=r"half\.pth cannot be read"):
        load_model(path.with_name("half.pth"))
    with pytest.raises(UsageError, match="was not written by segroi train"):
        load_model(path.with_name("other.pth"))
    with pytest.raises(UsageError, match=r"did you mean .*weights\.pth"):
        load_model(path.with_name("weight.pth"))


def test_differing_keys_and_shapes_are_listed(saved):
    path, content = saved
    state = dict(content["state_dict"])
    state["roi_heads.box_predictor.cls_score.bias"] = torch.zeros(9)
    state["extra"] = state.pop("rpn.head.cls_logits.bias")
    save_checkpoint(path, {**content, "state_dict": state})
    with pytest.raises(UsageError) as error:
        load_model(path)
    text = str(error.value)
    assert "missing     rpn.head.cls_logits.bias" in text and "unexpected  extra" in text
    assert "cls_score.bias: file (9,), model (3,)" in text


def test_overrides_change_the_model(saved):
    model, _ = load_model(saved[0], size=48, score_threshold=0.3)
    assert model.transform.min_size == (48,) and model.roi_heads.score_thresh == 0.3


def test_the_digest_beside_a_file_is_checked(saved):
    path, content = saved
    save_checkpoint(path, content, digest=True)
    digest = path.with_name("weights.pth.sha256")
    assert digest.read_text().endswith("  weights.pth\n")
    load_model(path)
    save_checkpoint(path.with_name("other.pth"), {**content, "iteration": 3})
    path.with_name("other.pth").replace(path)
    with pytest.raises(UsageError, match="is not the one that .*weights.pth.sha256 is of"):
        load_model(path)


def test_a_newer_format_and_numbers_that_are_not_finite(saved):
    path, content = saved
    torch.save({**content, "format": "segroi-weights-2"}, path)
    with pytest.raises(UsageError, match="install the segroi that wrote it"):
        load_model(path)
    state = dict(content["state_dict"])
    state["rpn.head.cls_logits.bias"] = torch.full_like(
        state["rpn.head.cls_logits.bias"], torch.nan
    )
    save_checkpoint(path, {**content, "state_dict": state})
    with pytest.raises(UsageError, match="not finite, in rpn.head.cls_logits.bias"):
        load_model(path)
