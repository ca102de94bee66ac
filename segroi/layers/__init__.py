"""Layers and functions that know of no detection framework."""

from segroi.layers.attention import GeneralizedAttention
from segroi.layers.context_block import ContextBlock
from segroi.layers.conv import ConvBlock, DepthwiseConv, RectConv, RectPadding, init_conv
from segroi.layers.empty import touch_parameters
from segroi.layers.non_local import NonLocal
from segroi.layers.norm import NormFactory, build_norm
from segroi.layers.squeeze_excitation import SqueezeExcitation

__all__ = [
    "ContextBlock",
    "ConvBlock",
    "DepthwiseConv",
    "GeneralizedAttention",
    "NonLocal",
    "NormFactory",
    "RectConv",
    "RectPadding",
    "SqueezeExcitation",
    "build_norm",
    "init_conv",
    "touch_parameters",
]
