"""Fully convolutional decoder that works on class scores.

Legend: maps N,C,H,W; the skips come fine to coarse, each of twice the resolution of the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FCNDecoder(nn.Module):
    """Class scores, upsampled by transposed convs and refined by added skip scores (FCN).

    Long et al., "Fully Convolutional Networks for Semantic Segmentation"; thesis, section 4.2.1.
    Every step is a 4x4 transposed conv of stride 2 from classes to classes, without a bias, plus a
    1x1 conv of the skip. Steps start as bilinear upsampling, skips at zero, so the decoder starts
    as plain upsampling of the score.

    Args:
        in_channels: channels of the coarsest map.
        skip_channels: channels of the skips, fine to coarse; empty for no step.
        num_classes: channels of the result.
    """

    def __init__(self, in_channels: int, skip_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(in_channels, num_classes, 1)
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, padding=1, bias=False)
            for _ in skip_channels
        )
        self.skips = nn.ModuleList(nn.Conv2d(c, num_classes, 1) for c in skip_channels)
        for step in self.upsample:
            _init_bilinear(step)
        for conv in (self.score, *self.skips):
            nn.init.zeros_(conv.bias)
        for conv in self.skips:
            nn.init.zeros_(conv.weight)

    def forward(self, features: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
        """Class scores at the resolution of the finest skip.

        Args:
            features: ``Tensor[N, in_channels, H, W]``, the coarsest map.
            skips: maps fine to coarse, as many as the decoder has steps; each has twice the cells
                of the next coarser map, or one less where that rounded up.

        Returns:
            ``Tensor[N, num_classes, h, w]``.
        """
        if len(skips) != len(self.skips):
            raise ValueError(f"FCNDecoder: expected {len(self.skips)} skips, got {len(skips)}")
        score = self.score(features)
        for upsample, conv, skip in reversed(list(zip(self.upsample, self.skips, skips))):
            score = upsample(score)[..., : skip.shape[-2], : skip.shape[-1]] + conv(skip)
        return score


@torch.no_grad()
def _init_bilinear(upsample: nn.ConvTranspose2d) -> None:
    """Make each class its own bilinear interpolation by 2."""
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    upsample.weight.zero_()
    for channel in range(upsample.in_channels):
        upsample.weight[channel, channel] = torch.outer(ramp, ramp)
