"""torchvision's classification networks as feature pyramids of strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d

from segroi.utils.suggest import UsageError, existing_file, unknown

BACKBONES = (
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet10",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
)
STRIDES = (4, 8, 16, 32)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0), channels)


NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "frozen": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
}


def build_backbone(
    name: str,
    channels: int = 256,
    norm: str = "batch",
    frozen_stages: int = 0,
    pyramid_norm: str = "none",
) -> BackboneWithFPN:
    """A feature pyramid on a torchvision network, without weights.

    Args:
        name: one of ``BACKBONES``.
        channels: channels of every pyramid level.
        norm: "frozen" (batch norm with fixed statistics, for pretrained weights), "batch", "group".
        frozen_stages: how many stages are not trained, from the image on: 1 freezes everything up
            to stride 4, 2 up to stride 8, ...
        pyramid_norm: normalisation of the pyramid's own convolutions: "none", "batch", "group".

    Returns:
        A module that maps images to the levels "0".."3" (strides 4 to 32) and "pool" (64).
    """
    if name not in BACKBONES:
        raise UsageError(unknown("backbone", name, BACKBONES))
    network = _network(name, norm_layer(norm))
    body, ends, widths = _stages(network)
    _freeze(body, ends, frozen_stages)
    returned = {end: str(level) for level, end in enumerate(ends)}
    return BackboneWithFPN(body, returned, widths, channels, norm_layer=norm_layer(pyramid_norm))


def norm_layer(name: str) -> Callable[[int], nn.Module] | None:
    """What builds a normalisation of so many channels, by its name in ``NORMS``."""
    if name not in NORMS:
        raise UsageError(unknown("norm", name, NORMS))
    return NORMS[name]


def load_backbone_weights(backbone: BackboneWithFPN, path: str | Path) -> None:
    """Load a classification checkpoint of the same torchvision network, without its classifier.

    Args:
        backbone: what ``build_backbone`` returned.
        path: file with torchvision's state dict (read with ``weights_only=True``).
    """
    state = read_weights(path)
    state = {key.removeprefix("features."): value for key, value in state.items()}
    wanted = backbone.body.state_dict()
    missing = sorted(k for k in wanted.keys() - state.keys() if "num_batches" not in k)
    shapes = [k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape]
    if missing or shapes:
        raise UsageError(
            f"backbone weights {path} are of another network: {len(missing)} of {len(wanted)} "
            f"tensors are missing (e.g. {missing[:2]}), {len(shapes)} have another shape"
        )
    backbone.body.load_state_dict({k: state[k] for k in wanted if k in state}, strict=False)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, also of one that holds them under "state_dict".

    Raises:
        UsageError: the file is missing, damaged, or holds something else.
    """
    path = existing_file(path, "backbone weights")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds on files that are not its own
        raise UsageError(f"backbone weights {path} cannot be read: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"backbone weights {path} hold no tensors by name")
    return state


def _network(name: str, norm: Callable[[int], nn.Module] | None) -> nn.Module:
    if name == "resnet10":  # one basic block a stage, for training from scratch on a CPU
        return ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm)
    return get_model(name, weights=None, norm_layer=norm)


def _stages(network: nn.Module) -> tuple[nn.Module, list[str], list[int]]:
    """The trunk, the names of the last module of strides 4, 8, 16, 32, and their channels."""
    if hasattr(network, "layer4"):
        ends = [f"layer{i}" for i in range(1, 5)]
        return network, ends, [network.fc.in_features // 2**i for i in (3, 2, 1, 0)]
    blocks = network.features
    strided = [i for i, block in enumerate(blocks) if getattr(block, "_is_cn", False)]
    ends = [i - 1 for i in strided[1:]] + [len(blocks) - 1]
    return blocks, [str(i) for i in ends], [blocks[i].out_channels for i in ends]


def _freeze(body: nn.Module, ends: list[str], stages: int) -> None:
    if not 0 <= stages <= len(ends):
        raise UsageError(f"frozen_stages must be 0 to {len(ends)}, got {stages}")
    if stages == 0:
        return
    for name, module in body.named_children():
        module.requires_grad_(False)
        if name == ends[stages - 1]:
            return
