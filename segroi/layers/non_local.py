"""Embedded-Gaussian non-local block with any kernel size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class NonLocal(nn.Module):
    """Embedded-Gaussian non-local block with a residual: x + W softmax(theta phi^T / sqrt(d)) g.

    X. Wang et al., "Non-local Neural Networks", eq. (4); SBR-CNN section 3.2 enlarges the kernels
    of all four convolutions to 7x7. The output convolution starts at 0: identity at the start.

    Args:
        channels: channels of input and output.
        kernel_size: odd kernel of the four convolutions.
        reduction: divides the channels of theta, phi and g.
    """

    def __init__(self, channels: int, kernel_size: int = 1, reduction: int = 2) -> None:
        super().__init__()
        inner = channels // reduction
        padding = kernel_size // 2
        self.theta = nn.Conv2d(channels, inner, kernel_size, padding=padding)
        self.phi = nn.Conv2d(channels, inner, kernel_size, padding=padding)
        self.g = nn.Conv2d(channels, inner, kernel_size, padding=padding)
        self.out = nn.Conv2d(inner, channels, kernel_size, padding=padding)
        for conv in (self.theta, self.phi, self.g):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add the attended embedding to the input.

        Args:
            x: Tensor[N, C, H, W].

        Returns:
            Tensor[N, C, H, W].
        """
        theta, phi, g = (conv(x).flatten(2).mT for conv in (self.theta, self.phi, self.g))
        attended = F.scaled_dot_product_attention(theta, phi, g)
        return x + self.out(attended.mT.unflatten(-1, x.shape[-2:]))
