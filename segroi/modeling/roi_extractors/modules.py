"""Pre- and post-processing modules of GRoIE by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from segroi.layers import ConvBlock, DepthwiseConv, GeneralizedAttention, NonLocal, RectConv


def _conv(channels: int, kernel_size: int) -> nn.Module:
    return ConvBlock(channels, channels, kernel_size)


def _depthwise(channels: int, kernel_size: int) -> nn.Module:
    return DepthwiseConv(channels, channels, kernel_size)


def _rect(channels: int, padding: str) -> nn.Module:
    return RectConv(channels, channels, channels, padding)


ROI_MODULES: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "conv1x1": partial(_conv, kernel_size=1),
    "conv3x3": partial(_conv, kernel_size=3),
    "conv5x5": partial(_conv, kernel_size=5),
    "conv7x7": partial(_conv, kernel_size=7),
    "depthwise5x5": partial(_depthwise, kernel_size=5),
    "depthwise7x7": partial(_depthwise, kernel_size=7),
    "rect": partial(_rect, padding="code"),
    "rect_paper": partial(_rect, padding="paper"),
    "rect_same": partial(_rect, padding="same"),
    "non_local1x1": partial(NonLocal, kernel_size=1),
    "non_local7x7": partial(NonLocal, kernel_size=7),
    "attention": GeneralizedAttention,
}


def build_roi_module(name: str, channels: int) -> nn.Module:
    """Build a module that maps [N, C, h, w] to the same shape.

    Args:
        name: a key of `ROI_MODULES`; convolutions carry bias and ReLU.
        channels: channels of input and output.

    Returns:
        The module.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in ROI_MODULES:
        expected = ", ".join(ROI_MODULES)
        raise ValueError(f"build_roi_module: name must be one of {expected}; got {name!r}")
    return ROI_MODULES[name](channels)
