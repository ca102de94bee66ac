from __future__ import annotations

import pytest
import torch
from torch import nn

from segroi.layers.tensorflow import SameConv2d
from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1, load_imagenet
from segroi.modeling.semantic.low_cost import LowCostSegmenter


def slim_count(model):
    statistics = [b for n, b in model.named_buffers() if "running_" in n]
    return sum(t.numel() for t in (*model.parameters(), *statistics))


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (7, 5, 3), (6, 3, 1)])
def test_same_padding(size, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    x = torch.randn(1, 1, size, size + 1)
    expected = []
    for n in (size, size + 1):
        cells = -(-n // stride)
        total = max((cells - 1) * stride + kernel - n, 0)
        expected.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = expected
    padded = nn.functional.pad(x, (left, right, top, bottom))
    assert torch.equal(conv(x), nn.functional.conv2d(padded, conv.weight, stride=stride))
    assert conv(x).shape[-2:] == (-(-size // stride), -(-(size + 1) // stride))


@pytest.mark.parametrize("size", [(8, 8), (8, 9), (9, 8), (1, 2)])
def test_same_padding_of_depthwise_convolutions_without_a_padded_copy(size):
    conv = SameConv2d(16, 16, 3, 2, groups=16)
    x = torch.randn(2, 16, *size).to(memory_format=torch.channels_last)
    with torch.no_grad():
        found = conv(x)
    assert torch.allclose(found, conv(x), rtol=0, atol=1e-6)


def test_counts():
    with torch.device("meta"):
        assert slim_count(MobileNetV1(1.0)) == 3_228_864
        assert slim_count(MobileNetV1(0.5)) == 829_536
        for stride, rate in ((16, 1), (8, 3)):
            assert slim_count(MobileNetV1(0.5, stride, rate)) == 829_536


@pytest.mark.parametrize(
    ("skips", "stride", "count"),
    [
        ((), 32, 839_283),
        (("conv11",), 32, 849_942),
        (("conv5", "conv11"), 32, 858_169),
        ((), 8, 839_283),
    ],
)
def test_semantic_nets_of_the_thesis(skips, stride, count):
    model = LowCostSegmenter(MobileNetV1(0.5, stride), 19, "conv13", skips)
    assert slim_count(model) == count
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 19, 64, 96)


def dilations(model):
    return [block[0].dilation[0] for block in model.model]


def test_output_strides_follow_slim():
    maps = MobileNetV1(0.25, 16).eval()(torch.zeros(1, 3, 64, 64))
    assert maps["conv13"].shape[-1] == 4
    assert dilations(MobileNetV1(0.25, 16))[11:] == [1, 1, 2]
    model = MobileNetV1(0.25, 8, last_atrous_rate=3)
    assert dilations(model)[5:] == [1, 1, 2, 2, 2, 2, 2, 2, 12]
    maps = model.eval()(torch.zeros(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps.values()] == [8, 8, 8]
    assert model.strides == {"conv5": 8, "conv11": 8, "conv13": 8}


def test_odd_sizes_round_up():
    for padding in ("same", "symmetric"):
        maps = MobileNetV1(0.25, padding=padding).eval()(torch.zeros(1, 3, 65, 33))
        assert maps["conv13"].shape[-2:] == (3, 2)


def test_imagenet_weights_load_by_name():
    source = MobileNetV1(0.25).state_dict()
    assert "model.0.0.weight" in source and "model.13.4.running_var" in source
    model = MobileNetV1(0.25)
    load_imagenet(model, {f"module.{k}": v for k, v in source.items()} | {"fc.weight": 0})
    assert all(torch.equal(v, source[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="another shape"):
        load_imagenet(MobileNetV1(0.5), source)
    with pytest.raises(ValueError, match="missing"):
        load_imagenet(model, {})


def test_wrong_arguments():
    for arguments in ({"output_stride": 4}, {"padding": "valid"}, {"out_features": ("conv14",)}):
        with pytest.raises(ValueError, match="MobileNetV1"):
            MobileNetV1(0.25, **arguments)
