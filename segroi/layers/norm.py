"""Normalisation layers by name, so that configurations stay plain text."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
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


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold batch norms in eval mode into the convolutions before them, for inference.

    Only pairs that follow each other in an ``nn.Sequential`` are folded, in place; the norm becomes
    an identity, so weights can be loaded no more.

    Args:
        module: in eval mode.

    Returns:
        The module, which computes the same.
    """
    for parent in [m for m in module.modules() if isinstance(m, nn.Sequential)]:
        names = list(parent._modules)
        for first, second in zip(names, names[1:]):
            conv, norm = parent._modules[first], parent._modules[second]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                if not norm.training:
                    parent._modules[first] = fuse_conv_bn_eval(conv, norm)
                    parent._modules[second] = nn.Identity()
    return module
