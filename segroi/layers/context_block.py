"""Global context block of GC-Net."""

from __future__ import annotations

from torch import Tensor, nn


class ContextBlock(nn.Module):
    """Add to every pixel one transformed, attention-pooled vector of the whole map.

    Y. Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
    Fig. 4(d). The last convolution starts at 0: identity at the start.

    Args:
        channels: channels of input and output.
        ratio: bottleneck channels as a fraction of `channels`.
    """

    def __init__(self, channels: int, ratio: float = 0.25) -> None:
        super().__init__()
        inner = int(channels * ratio)
        self.mask = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.LayerNorm([inner, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1),
        )
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.mask.bias)
        nn.init.zeros_(self.transform[-1].weight)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add the context to the input.

        Args:
            x: Tensor[N, C, H, W].

        Returns:
            Tensor[N, C, H, W].
        """
        weights = self.mask(x).flatten(2).softmax(dim=-1)
        context = (x.flatten(2) @ weights.mT)[..., None]
        return x + self.transform(context)
