from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone import BasicStem, ResNet

from segroi.d2 import load_config
from segroi.d2.gc_net import gc_resnet
from segroi.layers.context_block import ContextBlock

ROOT = Path(__file__).resolve().parents[2]


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_starts_as_the_plain_network_whose_weights_it_loads():
    torch.manual_seed(0)
    plain = ResNet(
        BasicStem(norm="BN"),
        ResNet.make_default_stages(50, stride_in_1x1=True, norm="BN"),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=2,
    ).eval()
    model = gc_resnet(norm="BN").eval()
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(".context." in name for name in missing)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), plain(x))


def test_context_blocks_stand_in_res3_to_res5_with_a_quarter_of_the_channels():
    with torch.device("meta"):
        model = gc_resnet(norm="BN")
    found = {n: m for n, m in model.named_modules() if isinstance(m, ContextBlock)}
    assert {name[:4] for name in found} == {"res3", "res4", "res5"}
    assert len(found) == 4 + 6 + 3
    for module in found.values():
        channels = module.mask.in_channels
        inner = channels // 4
        expected = channels + 1 + (channels + 1) * inner + 2 * inner + (inner + 1) * channels
        assert count(module) == expected


@pytest.mark.parametrize("system", ["mask_rcnn_gc", "mask_rcnn_gc_groie", "htc_gc", "sbr_cnn_gc"])
def test_yacs_and_lazy_build_the_same_backbone(system):
    cfg = load_config(str(ROOT / f"configs/d2/{system}_R_50_FPN_1x.yaml"))
    lazy = LazyConfig.load(str(ROOT / f"configs/d2/{system}_R_50_FPN_1x.py")).model.backbone
    with torch.device("meta"):
        models = build_backbone(cfg), instantiate(lazy)
    assert repr(models[0]) == repr(models[1])
    trained = [[n for n, p in m.named_parameters() if p.requires_grad] for m in models]
    assert trained[0] == trained[1]
    assert not any("stem" in name or "res2" in name for name in trained[0])
    assert "bottom_up.res3.0.conv1.norm.weight" in trained[0]
