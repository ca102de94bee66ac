from __future__ import annotations

import pytest
import torch
from torchvision.models import squeezenet1_1

from segroi.modeling.backbones.squeezenet import SqueezeNet


def linear(module):
    """Replace every nonlinearity, so that impulse responses show the taps."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.ReLU):
            setattr(module, name, torch.nn.Identity())
        linear(child)
    return module


def test_names_and_number_of_parameters_are_torchvisions():
    ours = SqueezeNet().state_dict()
    theirs = {k: v for k, v in squeezenet1_1().state_dict().items() if k.startswith("features")}
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert sum(v.numel() for v in ours.values()) == 722_496


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(1, 1), (16, 32), (33, 31), (65, 130)])
def test_sizes(output_stride, size):
    encoder = SqueezeNet(output_stride).eval()
    maps = encoder(torch.randn(1, 3, *size))
    for name, stride in encoder.strides.items():
        expected = (1, encoder.out_channels[name], *(-(-s // stride) for s in size))
        assert maps[name].shape == expected
    assert encoder.strides["fire9"] == output_stride


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("last_atrous_rate", [1, 3, 5])
def test_rates(output_stride, last_atrous_rate):
    fires = SqueezeNet(output_stride, last_atrous_rate).features[9:]
    rates = [fire.expand3x3.dilation[0] for fire in fires]
    rate = 16 // output_stride
    assert rates == [rate, rate, rate, rate * last_atrous_rate]


@pytest.mark.parametrize(("output_stride", "last_atrous_rate"), [(16, 1), (8, 1), (16, 3), (8, 5)])
def test_impulse_spreads_by_the_rate_of_the_last_module(output_stride, last_atrous_rate):
    fire = SqueezeNet(output_stride, last_atrous_rate).features[-1]
    fire = linear(fire).double()
    impulse = torch.zeros(1, 512, 41, 41, dtype=torch.float64)
    impulse[..., 20, 20] = 1
    response = (fire(impulse) - fire(impulse * 0)).abs().sum((0, 1, 2))
    rate = 16 // output_stride * last_atrous_rate
    assert response.nonzero().flatten().tolist() == [20 - rate, 20, 20 + rate]


def test_stride_8_sees_what_stride_16_sees_on_its_grid():
    """The atrous rule: dense evaluation agrees with the strided net at every second cell."""
    torch.manual_seed(0)
    strided, dense = SqueezeNet(16).eval(), SqueezeNet(8).eval()
    dense.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(dense(images)["fire9"][..., ::2, ::2], strided(images)["fire9"])


def test_wrong_output_stride():
    with pytest.raises(ValueError, match="output_stride must be 8 or 16, got 32"):
        SqueezeNet(32)
