"""Convolution blocks: convolution, norm and activation, and the 7x3 -> 3x7 pair of SBR-CNN."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from segroi.layers.norm import NormFactory, build_norm

RectPadding = Literal["code", "paper", "same"]

# Padding of the 7x3 and of the 3x7 convolution. A 7x7 map becomes 3x7 in between with the authors'
# code, 7x11 with the text of the paper, and keeps its size with "same"; all end at 7x7.
_RECT_PADDINGS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "code": ((1, 1), (3, 3)),
    "paper": ((3, 3), (1, 1)),
    "same": ((3, 1), (1, 3)),
}


def init_conv(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Initialise a convolution that feeds a ReLU: Kaiming normal (fan out), zero bias."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class ConvBlock(nn.Sequential):
    """Convolution, optional norm, optional ReLU; the bias is there only without a norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel.
        stride: stride of both axes.
        padding: zero padding of both axes; None keeps the size (odd kernels, stride 1).
        groups: groups of the convolution; `in_channels` makes it depthwise.
        norm: see `build_norm`.
        activation: whether a ReLU ends the block.

    Example:
        >>> ConvBlock(256, 128, 3, norm="GN")(torch.rand(2, 256, 7, 7)).shape
        torch.Size([2, 128, 7, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        norm: str | NormFactory | None = None,
        activation: bool = True,
    ) -> None:
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = (kh // 2, kw // 2) if padding is None else padding
        norm_layer = build_norm(norm, out_channels)
        conv = nn.Conv2d(
            in_channels, out_channels, (kh, kw), stride, padding, groups=groups, bias=not norm_layer
        )
        init_conv(conv)
        layers: list[tuple[str, nn.Module]] = [("conv", conv)]
        if norm_layer is not None:
            layers.append(("norm", norm_layer))
        if activation:
            layers.append(("act", nn.ReLU(inplace=True)))
        super().__init__(OrderedDict(layers))


class RectConv(nn.Sequential):
    """A 7x3 and then a 3x7 convolution, each with bias and ReLU (SBR-CNN, Fig. 4(c)).

    Args:
        in_channels: channels of the input.
        mid_channels: channels between the two convolutions.
        out_channels: channels of the output.
        padding: "code" (1 on both axes of 7x3, 3 of 3x7), "paper" (3, then 1), or "same" per axis.

    Raises:
        ValueError: if the padding is unknown.
    """

    def __init__(
        self, in_channels: int, mid_channels: int, out_channels: int, padding: RectPadding = "code"
    ) -> None:
        if padding not in _RECT_PADDINGS:
            expected = sorted(_RECT_PADDINGS)
            raise ValueError(f"RectConv: padding must be one of {expected}, got {padding!r}")
        first, second = _RECT_PADDINGS[padding]
        super().__init__(
            ConvBlock(in_channels, mid_channels, (7, 3), padding=first),
            ConvBlock(mid_channels, out_channels, (3, 7), padding=second),
        )


class DepthwiseConv(nn.Sequential):
    """A depthwise k x k and a pointwise 1x1 convolution with one ReLU at the end.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd size of the depthwise kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(
            ConvBlock(in_channels, in_channels, kernel_size, groups=in_channels, activation=False),
            ConvBlock(in_channels, out_channels, 1),
        )
