import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone
from torchvision.models import mobilenet_v2

from segroi.d2 import load_config
from segroi.d2.backbones import MobileNetV2, small_resnet


@pytest.mark.parametrize("build", [small_resnet, MobileNetV2])
def test_output_shape_tells_the_truth(build):
    backbone = build()
    outputs = backbone(torch.zeros(1, 3, 64, 96))
    assert list(outputs) == list(backbone.output_shape()) == ["res2", "res3", "res4", "res5"]
    for name, shape in backbone.output_shape().items():
        assert outputs[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)


@pytest.mark.parametrize("name", ["small_resnet", "mobilenet_v2"])
def test_fpn_from_yacs(name):
    cfg = load_config("")
    cfg.MODEL.BACKBONE.NAME = f"build_{name}_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.MOBILENET_V2.WIDTH = 0.25
    backbone = build_backbone(cfg)
    outputs = backbone(torch.zeros(1, 3, 64, 64))
    assert {name: tuple(x.shape[1:]) for name, x in outputs.items()} == {
        "p2": (8, 16, 16), "p3": (8, 8, 8), "p4": (8, 4, 4), "p5": (8, 2, 2), "p6": (8, 1, 1)
    }  # fmt: skip


def test_imagenet_weights_of_torchvision_load(tmp_path):
    torch.manual_seed(0)
    original = mobilenet_v2(width_mult=0.25).eval()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    backbone = torch.nn.Module()  # so that the names carry a prefix, as inside a detector
    backbone.bottom_up = MobileNetV2(width=0.25)
    DetectionCheckpointer(backbone).load(f"{tmp_path}/weights.pth?matching_heuristics=True")
    image = torch.randn(1, 3, 64, 64)
    ours = backbone.bottom_up(image)["res5"]
    torch.testing.assert_close(ours, original.features[:18](image))


def test_frozen_statistics_have_no_parameters():
    frozen = sum(p.numel() for p in MobileNetV2(norm="FrozenBN").parameters())
    trained = sum(p.numel() for p in MobileNetV2(norm="BN").parameters())
    assert frozen < trained


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm must be 'BN' or 'FrozenBN', got 'GN'"):
        MobileNetV2(norm="GN")
