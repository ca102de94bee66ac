from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import SqueezeExcitation as TorchvisionSE

from segroi.layers import (
    ConvBlock,
    DepthwiseConv,
    RectConv,
    SqueezeExcitation,
    build_norm,
    touch_parameters,
)


@pytest.mark.parametrize(
    ("padding", "middle"),
    [("code", {7: (3, 7), 14: (10, 14)}), ("paper", {7: (7, 11)}), ("same", {7: (7, 7)})],
)
def test_rect_conv_keeps_the_size_and_passes_through_the_stated_one(padding, middle):
    module = RectConv(4, 6, 8, padding)
    for size, expected in middle.items():
        x = torch.randn(2, 4, size, size)
        assert module[0](x).shape == (2, 6, *expected)
        assert module(x).shape == (2, 8, size, size)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [((256, 256, 128), 1_376_512 + 688_256), ((128, 128, 64), 344_192 + 172_096)],
)
def test_rect_conv_counts_of_table_1(channels, expected):
    assert sum(p.numel() for p in RectConv(*channels).parameters()) == expected


def test_rect_conv_names_the_known_paddings():
    with pytest.raises(ValueError, match="code.*paper.*same.*'valid'"):
        RectConv(4, 4, 4, "valid")


@pytest.mark.parametrize("norm", [None, "", "BN", "SyncBN", "FrozenBN", "GN", nn.InstanceNorm2d])
def test_conv_block_has_a_bias_only_without_a_norm(norm):
    block = ConvBlock(4, 32, 3, norm=norm)
    assert (block.conv.bias is None) == bool(norm)
    assert hasattr(block, "norm") == bool(norm)


def test_conv_block_keeps_the_size_of_an_even_and_an_odd_map():
    for kernel in (1, 3, 5, 7, (7, 3)):
        assert ConvBlock(4, 8, kernel)(torch.randn(1, 4, 6, 9)).shape == (1, 8, 6, 9)


def test_conv_block_without_activation_is_linear():
    block = ConvBlock(4, 8, 3, activation=False)
    x, y = torch.randn(2, 1, 4, 6, 6)
    torch.testing.assert_close(block(x) + block(y), block(x + y))


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match="'LN'"):
        build_norm("LN", 8)


def test_depthwise_conv_counts():
    module = DepthwiseConv(256, 256, 5)
    assert sum(p.numel() for p in module.parameters()) == 256 * 26 + 256 * 257
    assert module(torch.randn(1, 256, 7, 7)).shape == (1, 256, 7, 7)


def test_squeeze_excitation_equals_torchvision():
    ours, theirs = SqueezeExcitation(32), TorchvisionSE(32, 2)
    for mine, other in ((ours.reduce, theirs.fc1), (ours.expand, theirs.fc2)):
        other.weight.data.copy_(mine.weight[:, :, None, None])
        other.bias.data.copy_(mine.bias)
    x = torch.randn(3, 32, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x[:0]).shape == (0, 32, 5, 6)


def test_touching_parameters_gives_zero_gradients_even_of_infinite_ones():
    module = nn.Linear(3, 2)
    module.bias.data.fill_(float("inf"))
    x = torch.randn(4)
    out = touch_parameters(x, module)
    assert torch.equal(out, x)
    out.sum().backward()
    assert not module.weight.grad.any() and not module.bias.grad.any()
