"""Multi-scale feature extraction on the levels of a feature pyramid (CoMask, section 3.1).

Legend: features N,C,H,W, levels fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from segroi.layers.conv import ConvBlock
from segroi.layers.norm import NormFactory
from segroi.layers.squeeze_excitation import SqueezeExcitation

Chain = Literal["independent", "cascade", "tied"]


class MSFEM(nn.Module):
    """Multi-scale feature extraction: strided branches, channel attention, a conv (eq. 1-7).

    Branch i sees the input through i convs of stride 2; all branches come back to the input's exact
    size (bilinear) and are concatenated. The equations read as one iterated conv, the prose as
    branches that own their convs; ``chain`` chooses.

    Args:
        channels: channels of input and output.
        num_branches: 1 to 4 in the paper (CoMask_1, _2, _4); branch 0 is the input itself.
        chain: ``"independent"`` convs for every branch, ``"cascade"``: branch i continues branch
            i - 1, ``"tied"``: the cascade with a single shared conv.
        reduction: of the channel attention.
        norm: of every conv, see `build_norm`; the paper names none.

    Example:
        >>> MSFEM(32, reduction=4)(torch.zeros(1, 32, 5, 7)).shape
        torch.Size([1, 32, 5, 7])
    """

    def __init__(
        self,
        channels: int = 256,
        num_branches: int = 4,
        chain: Chain = "independent",
        reduction: int = 16,
        norm: str | NormFactory | None = None,
    ) -> None:
        super().__init__()
        if num_branches < 1:
            raise ValueError(f"MSFEM: num_branches must be at least 1, got {num_branches}")
        if chain not in ("independent", "cascade", "tied"):
            raise ValueError(f"MSFEM: chain must be independent, cascade or tied, got {chain!r}")
        self.num_branches, self.chain = num_branches, chain
        num_convs = {
            "independent": num_branches * (num_branches - 1) // 2,
            "cascade": num_branches - 1,
            "tied": min(1, num_branches - 1),
        }
        self.strided = nn.ModuleList(
            ConvBlock(channels, channels, 3, stride=2, norm=norm) for _ in range(num_convs[chain])
        )
        self.fuse = ConvBlock(channels * num_branches, channels, 1, norm=norm)
        self.attention = SqueezeExcitation(channels, reduction)
        self.output = ConvBlock(channels, channels, 3, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``Tensor[N, C, H, W]`` of the same shape, for H and W down to 1."""
        branches = [features, *(self._restore(b, features) for b in self._branches(features))]
        return self.output(self.attention(self.fuse(torch.cat(branches, dim=1))))

    def _branches(self, features: Tensor) -> list[Tensor]:
        branches, convs = [], iter(self.strided)
        branch = features
        for depth in range(1, self.num_branches):
            if self.chain == "independent":
                branch = features
                for _ in range(depth):
                    branch = next(convs)(branch)
            else:
                branch = (self.strided[0] if self.chain == "tied" else next(convs))(branch)
            branches.append(branch)
        return branches

    @staticmethod
    def _restore(branch: Tensor, features: Tensor) -> Tensor:
        return F.interpolate(branch, size=features.shape[-2:], mode="bilinear", align_corners=False)


class MFPN(nn.Module):
    """Multi-scale feature pyramid: one :class:`MSFEM` for each pyramid level, with its own weights.

    Args:
        num_levels: levels of the pyramid (5 in the paper, P2 to P6).
        **kwargs: arguments of :class:`MSFEM`.
    """

    def __init__(self, num_levels: int = 5, **kwargs: int | str) -> None:
        super().__init__()
        self.levels = nn.ModuleList(MSFEM(**kwargs) for _ in range(num_levels))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The refined levels, each of its input's shape.

        Raises:
            ValueError: if the number of levels is another.
        """
        if len(features) != len(self.levels):
            raise ValueError(f"MFPN: expected {len(self.levels)} levels, got {len(features)}")
        return [level(feature) for level, feature in zip(self.levels, features)]


class MFPNBlock(ExtraFPNBlock):
    """MFPN as torchvision's ``extra_blocks``: adds the pooled P6, then refines every level.

    Args:
        num_levels: levels that come out, the pooled one among them.
        **kwargs: arguments of :class:`MSFEM`.
    """

    def __init__(self, num_levels: int = 5, **kwargs: int | str) -> None:
        super().__init__()
        self.pool = LastLevelMaxPool()
        self.mfpn = MFPN(num_levels, **kwargs)

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Refined levels and their names, as torchvision's pyramid expects them."""
        results, names = self.pool(results, x, names)
        return self.mfpn(results), names
