"""Box heads: two fully connected layers, or SBR-CNN's fully connected channels (FCC)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from segroi.layers.conv import ConvBlock, RectConv, RectPadding
from segroi.layers.non_local import NonLocal

Kernel = Literal["square", "rect", "rect_early"]


class FCCVariant(NamedTuple):
    """Kernels of the two steps, and whether a non-local block stands before them."""

    kernel: Kernel
    non_local_before: bool


# Letters of SBR-CNN Fig. 4. "e_early" reduces the channels in the first convolution of each
# rectangular pair: the released configuration, while "e" follows Table 1.
FCC_VARIANTS: dict[str, FCCVariant] = {
    "b": FCCVariant("square", False),
    "c": FCCVariant("rect", False),
    "d": FCCVariant("square", True),
    "e": FCCVariant("rect", True),
    "e_early": FCCVariant("rect_early", True),
}


def _reduce(channels: int, kernel: Kernel, padding: RectPadding) -> nn.Module:
    """One step: half the channels, same size."""
    half = channels // 2
    if kernel == "square":
        return ConvBlock(channels, half, 7)
    return RectConv(channels, half if kernel == "rect_early" else channels, half, padding)


class FCC(nn.Sequential):
    """Large-kernel convolutions from C to C/4 channels in place of two FC layers (SBR-CNN 3.2).

    Args:
        in_channels: channels C of the input.
        variant: a key of `FCC_VARIANTS`.
        non_local_after: add a 7x7 non-local block at C/4 channels after the convolutions.
        padding: of the rectangular kernels, see `RectConv`.

    Raises:
        ValueError: if the variant is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        variant: str,
        *,
        non_local_after: bool = False,
        padding: RectPadding = "code",
    ) -> None:
        if variant not in FCC_VARIANTS:
            raise ValueError(f"FCC: variant must be in {sorted(FCC_VARIANTS)}, got {variant!r}")
        kernel, non_local_before = FCC_VARIANTS[variant]
        layers: list[nn.Module] = []
        if non_local_before:
            layers += [NonLocal(in_channels, 7), nn.ReLU(inplace=True)]
        layers.append(_reduce(in_channels, kernel, padding))
        layers.append(_reduce(in_channels // 2, kernel, padding))
        if non_local_after:
            layers += [NonLocal(in_channels // 4, 7), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class FCBoxHead(nn.Sequential):
    """Flatten and two fully connected layers with ReLU.

    Args:
        in_channels: channels of the RoI features.
        resolution: height and width of the RoI features, cells.
        fc_dim: width of both layers.
    """

    def __init__(self, in_channels: int = 256, resolution: int = 7, fc_dim: int = 1024) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(in_channels * resolution**2, fc_dim),
            nn.ReLU(inplace=True),
            nn.Linear(fc_dim, fc_dim),
            nn.ReLU(inplace=True),
        )
        for layer in (self[1], self[3]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.out_features = fc_dim


class FCCBoxHead(nn.Sequential):
    """FCC and a flatten, without pooling.

    Args:
        in_channels: channels of the RoI features.
        resolution: height and width of the RoI features, cells.
        variant: a key of `FCC_VARIANTS`.
        non_local_after: see `FCC`.
        padding: see `FCC`.
    """

    def __init__(
        self,
        in_channels: int = 256,
        resolution: int = 7,
        variant: str = "e_early",
        *,
        non_local_after: bool = False,
        padding: RectPadding = "code",
    ) -> None:
        fcc = FCC(in_channels, variant, non_local_after=non_local_after, padding=padding)
        super().__init__(fcc, nn.Flatten())
        self.out_features = in_channels // 4 * resolution**2


class BoxPredictor(nn.Module):
    """Class logits and class-agnostic box deltas, one fully connected layer each.

    Args:
        in_features: length of the feature vectors.
        num_classes: foreground classes; the background is the last logit.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_features, num_classes + 1)
        self.bbox_pred = nn.Linear(in_features, 4)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from Tensor[K, in_features].

        Returns:
            logits Tensor[K, num_classes + 1] and deltas Tensor[K, 4].
        """
        return self.cls_score(features), self.bbox_pred(features)


def build_box_head(
    variant: str,
    in_channels: int = 256,
    resolution: int = 7,
    *,
    fc_dim: int = 1024,
    non_local_after: bool = False,
    padding: RectPadding = "code",
) -> FCBoxHead | FCCBoxHead:
    """Build the box head of a letter of SBR-CNN Fig. 4.

    Args:
        variant: "a" for the fully connected head, else a key of `FCC_VARIANTS`.
        in_channels: channels of the RoI features.
        resolution: height and width of the RoI features, cells.
        fc_dim: width of the layers of "a".
        non_local_after: see `FCC`.
        padding: see `FCC`.

    Returns:
        A module from Tensor[K, C, S, S] to Tensor[K, out_features].
    """
    if variant == "a":
        return FCBoxHead(in_channels, resolution, fc_dim)
    return FCCBoxHead(
        in_channels, resolution, variant, non_local_after=non_local_after, padding=padding
    )
