"""Models as the commands that predict load them."""

from __future__ import annotations

import torch
from torch import nn

from segroi.cli._model import load_for_prediction
from segroi.tv.checkpoint import describe, save_checkpoint
from segroi.tv.models import build_model

ARGUMENTS = {"depth_multiplier": 0.25, "size": 64, "shapes": [[2, 2], [1, 1]]}


def test_norms_are_folded_and_detections_stay(tmp_path):
    torch.manual_seed(0)
    model = build_model("ssd_isb", 2, **ARGUMENTS).train()
    images = [torch.rand(3, 50, 70)]
    with torch.no_grad():
        for _ in range(3):
            model.backbone(model.preprocess(images * 4))  # statistics that are not the first
        expected = model.eval()(images)[0]
    content = describe("ssd_isb", [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], ARGUMENTS)
    path = tmp_path / "model.pth"
    save_checkpoint(path, {**content, "state_dict": model.state_dict(), "config": {}})
    loaded, categories = load_for_prediction(str(path), device="cpu")
    assert [c["name"] for c in categories] == ["a", "b"]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in loaded.modules())
    with torch.no_grad():
        found = loaded(images)[0]
    assert len(found["boxes"]) == len(expected["boxes"]) > 0
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
