"""Mask heads that read their own previous features: R3-CNN's internal loop, HTC's mask flow.

Legend: K RoIs with features of S x S cells, masks of 2S x 2S.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segroi.layers.conv import ConvBlock, init_conv


class RecursiveMaskHead(nn.Module):
    """FCN mask head whose input is x + C1(features of the previous pass) (SBR-CNN eq. (3)-(4)).

    Args:
        in_channels: channels of the RoI features.
        num_classes: foreground classes, one mask channel each.
        conv_dim: channels of the convolutions; `in_channels` too where there is a previous pass.
        num_convs: 3x3 convolutions before the deconvolution.
        carry: whether the head has C1. The first head of HTC has none.
    """

    def __init__(
        self,
        in_channels: int = 256,
        num_classes: int = 80,
        *,
        conv_dim: int = 256,
        num_convs: int = 4,
        carry: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.carry = ConvBlock(conv_dim, in_channels, 1) if carry else None
        dims = [in_channels] + [conv_dim] * num_convs
        self.convs = nn.Sequential(
            *(ConvBlock(before, after, 3) for before, after in zip(dims[:-1], dims[1:]))
        )
        self.deconv = nn.ConvTranspose2d(conv_dim, conv_dim, 2, stride=2)
        self.predictor = nn.Conv2d(conv_dim, num_classes, 1)
        init_conv(self.deconv)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def refine(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        """One pass without prediction.

        Args:
            x: Tensor[K, in_channels, S, S], RoI features, the same in every pass.
            previous: Tensor[K, conv_dim, S, S], result of the previous pass; None in the first,
                where C1 runs on zeros and adds its rectified bias, as in eq. (3).

        Returns:
            Tensor[K, conv_dim, S, S].

        Raises:
            ValueError: if there is a previous pass but the head has no C1.
        """
        if self.carry is not None:
            if previous is None:
                previous = x.new_zeros(len(x), self.carry.conv.in_channels, *x.shape[2:])
            x = x + self.carry(previous)
        elif previous is not None:
            raise ValueError("RecursiveMaskHead.refine: previous needs a head with carry=True")
        return self.convs(x)

    def predict(self, features: Tensor) -> Tensor:
        """Mask logits Tensor[K, num_classes, 2S, 2S] of the features of a pass."""
        return self.predictor(self.deconv(features).relu())

    def forward(self, x: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One pass with prediction.

        Args:
            x: see `refine`.
            previous: see `refine`.

        Returns:
            mask logits Tensor[K, num_classes, 2S, 2S] and features Tensor[K, conv_dim, S, S].
        """
        features = self.refine(x, previous)
        return self.predict(features), features


def mask_loop(heads: Sequence[RecursiveMaskHead], stages: Sequence[int], x: Tensor) -> list[Tensor]:
    """Features of every pass of the internal loop; gradients flow through all of them.

    Args:
        heads: the mask heads.
        stages: which head does each pass, in order: stages[0..t] in loop t.
        x: Tensor[K, in_channels, S, S], RoI features.

    Returns:
        one Tensor[K, conv_dim, S, S] per pass.
    """
    passes: list[Tensor] = []
    for stage in stages:
        passes.append(heads[stage].refine(x, passes[-1] if passes else None))
    return passes


def ensemble_masks(
    heads: Sequence[RecursiveMaskHead], stages: Sequence[int], x: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean mask probabilities of all passes, the ensemble of HTC and R3-CNN at inference.

    Args:
        heads: the mask heads.
        stages: which head does each pass, in order.
        x: Tensor[K, in_channels, S, S], RoI features.

    Returns:
        probabilities Tensor[K, num_classes, 2S, 2S], and the logits of the last pass.
    """
    passes = mask_loop(heads, stages, x)
    logits = [heads[stage].predict(features) for stage, features in zip(stages, passes)]
    return torch.stack([mask.sigmoid() for mask in logits]).mean(dim=0), logits[-1]
