"""Squeeze-and-excitation channel attention."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Scale every channel by a gate computed from the global average of all channels.

    J. Hu et al., "Squeeze-and-Excitation Networks", eq. (3); CoMask eq. (5)-(6).

    Args:
        channels: channels of input and output.
        reduction: divides the channels between the two fully connected layers.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, channels)
        for layer in (self.reduce, self.expand):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Gate the channels.

        Args:
            x: Tensor[N, C, H, W].

        Returns:
            Tensor[N, C, H, W].
        """
        gate = self.expand(self.reduce(x.mean(dim=(2, 3))).relu()).sigmoid()
        return x * gate[:, :, None, None]
