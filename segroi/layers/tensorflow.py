"""Layers as TensorFlow has them: 'SAME' padding, truncated normal weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Conv2d):
    """A convolution whose result has ceil(size / stride) cells, padded as TensorFlow pads.

    An odd amount of padding puts the extra row at the bottom and the extra column at the right, so
    that a stride-2 convolution of an even map is a half-pixel shift away from PyTorch's symmetric
    padding. Weights converted from TensorFlow expect it. Parameters are those of ``nn.Conv2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, C, H, W] -> Tensor[N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        top, bottom = self._padding(x.shape[-2], 0)
        left, right = self._padding(x.shape[-1], 1)
        if top == bottom and left == right:
            return F.conv2d(
                x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups
            )
        depthwise = self.groups == self.in_channels and self.dilation == (1, 1)
        if depthwise and x.device.type == "cpu" and not torch.is_grad_enabled():
            # Zero weights before the first give the same sums under symmetric padding, and spare
            # a padded copy of the map, which takes longer than the convolution itself.
            weight = F.pad(self.weight, (right - left, 0, bottom - top, 0))
            stride, pad = self.stride, (bottom, right)
            return F.conv2d(x, weight, self.bias, stride, pad, groups=self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _padding(self, size: int, axis: int) -> tuple[int, int]:
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
        total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
        return total // 2, total - total // 2


class BatchNorm(nn.BatchNorm2d):
    """Batch norm with TensorFlow's epsilon that also trains on maps of one value a channel.

    One value has no variance: the running statistics take its place, where ``nn.BatchNorm2d``
    raises. It happens in the last maps of a detector that sees one small image.
    """

    def __init__(self, channels: int, momentum: float = 0.0003) -> None:
        super().__init__(channels, eps=0.001, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise Tensor[N, C, H, W]."""
        if x.numel() > x.shape[1]:
            return super().forward(x)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def init_truncated(conv: nn.Conv2d | nn.ConvTranspose2d, std: float = 0.03) -> None:
    """Normal weights of standard deviation ``std``, cut at two of them; zero bias."""
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
