"""Normalisation layers by name, so that configurations stay plain text."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

NormFactory = Callable[[int], nn.Module]

_NORMS: dict[str, NormFactory] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
}


def build_norm(norm: str | NormFactory | None, channels: int) -> nn.Module | None:
    """Build a normalisation layer from its name, or from a function of the channel count.

    Args:
        norm: "BN", "SyncBN", "FrozenBN", "GN" (32 groups), a callable `channels -> Module`, or
            None or "" for no normalisation.
        channels: number of channels to normalise.

    Returns:
        The layer, or None if there is none.

    Raises:
        ValueError: if the name is unknown.
    """
    if not norm:
        return None
    if not isinstance(norm, str):
        return norm(channels)
    if norm not in _NORMS:
        raise ValueError(f"build_norm: norm must be one of {sorted(_NORMS)} or '', got {norm!r}")
    return _NORMS[norm](channels)


def freeze_statistics(module: nn.Module) -> None:
    """Put every batch norm of a module into eval mode; scale and shift still learn."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eval()
