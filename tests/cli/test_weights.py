from __future__ import annotations

import json

import pytest
import torch

from segroi.cli.main import main
from segroi.tv.checkpoint import describe, load_model, save_checkpoint
from segroi.tv.models import build_model

ARGUMENTS = {"depth_multiplier": 0.25, "size": 64, "shapes": [[1, 1]]}


@pytest.fixture
def weights(tmp_path):
    model = build_model("ssd_isb", 2, **ARGUMENTS)
    categories = [{"id": 1, "name": "a"}, {"id": 7, "name": "b"}]
    content = describe("ssd_isb", categories, ARGUMENTS) | {"iteration": 3}
    save_checkpoint(tmp_path / "w.pth", content | {"state_dict": model.state_dict()})
    return tmp_path / "w.pth"


def test_facts_and_digest(weights, capsys):
    assert main(["weights", str(weights), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["categories"] == ["a", "b"] and facts["iteration"] == 3
    assert main(["weights", str(weights), "--sha256", facts["sha256"]]) == 0
    assert main(["weights", str(weights), "--sha256", "00"]) == 2
    assert "is not the file that was asked for" in capsys.readouterr().err


def test_safetensors_hold_the_same_model(weights, tmp_path, capsys):
    pytest.importorskip("safetensors")
    target = tmp_path / "w.safetensors"
    assert main(["weights", str(weights), "--to", str(target)]) == 0
    assert main(["weights", str(weights), "--to", str(target)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["weights", str(weights), "--to", str(tmp_path / "w.bin")]) == 2
    (ours, info), (theirs, _) = load_model(target), load_model(weights)
    assert [c["name"] for c in info["categories"]] == ["a", "b"]
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
