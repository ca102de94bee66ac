"""MobileNet-v1 as an encoder for detection and dense prediction.

Legend: images N,3,H,W; the map of stride s has ceil(H / s) x ceil(W / s) cells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segroi.layers.tensorflow import BatchNorm, SameConv2d, init_truncated

# (channels, stride) of the depthwise-separable blocks 1 to 13; block 0 is a full conv of stride 2.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
_LAST = len(_BLOCKS)
# timm's mobilenetv1_*: number of the block before each stage, place of each module in a block
_TIMM_STAGES = (1, 2, 4, 6, 12)
_TIMM_MODULES = {"conv_dw": 0, "bn1": 1, "conv_pw": 3, "bn2": 4}
_TIMM_STEM = {"conv_stem": "model.0.0", "bn1": "model.0.1"}


def scaled_depth(channels: int, multiplier: float, minimum: int = 8) -> int:
    """Channels times the depth multiplier, truncated, and at least ``minimum``."""
    return max(int(channels * multiplier), minimum)


class MobileNetV1(nn.Module):
    """MobileNet-v1 (Howard et al., arXiv:1704.04861) without its classifier.

    ``model.{i}`` is block i: a 3x3 conv, batch norm, ReLU6 and, but for block 0, a 1x1 conv, batch
    norm, ReLU6, so that converted ImageNet weights with the keys ``model.{0..13}.{0,1,3,4}`` load
    as they are. Where ``output_stride`` is reached, later blocks run at stride 1 and the depthwise
    convs behind them are dilated (slim's rule).

    Args:
        depth_multiplier: factor of all channel counts (1.0, 0.75, 0.5, 0.25).
        output_stride: 32, 16 or 8; stride of the last map.
        last_atrous_rate: multiplies the dilation of block 13.
        padding: "same" pads as TensorFlow does, "symmetric" by one on every side.
        norm_momentum: weight of a new batch in the running statistics (1 - TensorFlow's decay).
        out_features: names of the maps returned, among ``conv1`` to ``conv13``.

    Example:
        >>> maps = MobileNetV1(0.25)(torch.zeros(1, 3, 64, 64))
        >>> {name: list(x.shape) for name, x in maps.items()}
        {'conv5': [1, 64, 8, 8], 'conv11': [1, 128, 4, 4], 'conv13': [1, 256, 2, 2]}
    """

    def __init__(
        self,
        depth_multiplier: float = 1.0,
        output_stride: int = 32,
        last_atrous_rate: int = 1,
        padding: str = "same",
        norm_momentum: float = 0.0003,
        out_features: Sequence[str] = ("conv5", "conv11", "conv13"),
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"MobileNetV1: output_stride must be 8, 16 or 32, got {output_stride}")
        if padding not in ("same", "symmetric"):
            raise ValueError(f"MobileNetV1: padding must be same or symmetric, got {padding!r}")
        self._same, self._momentum = padding == "same", norm_momentum
        depths = [scaled_depth(c, depth_multiplier) for c, _ in _BLOCKS]
        channels = scaled_depth(32, depth_multiplier)
        blocks = [nn.Sequential(*self._conv(3, channels, 3, 2))]
        all_channels, all_strides = {}, {}
        stride, rate = 2, 1
        for i, (depth, (_, step)) in enumerate(zip(depths, _BLOCKS), start=1):
            dilation = rate * (last_atrous_rate if i == _LAST else 1)
            if stride * step > output_stride:
                step, rate = 1, rate * step
            stride *= step
            blocks.append(self._separable(channels, depth, step, dilation))
            channels = depth
            all_channels[f"conv{i}"], all_strides[f"conv{i}"] = channels, stride
        unknown = set(out_features) - set(all_channels)
        if unknown:
            raise ValueError(
                f"MobileNetV1: out_features must be among conv1 to conv13, got {sorted(unknown)}"
            )
        self.model = nn.ModuleList(blocks)
        self._block_strides = [2, *all_strides.values()]
        self.out_channels = {name: all_channels[name] for name in out_features}
        self.strides = {name: all_strides[name] for name in out_features}

    def _conv(
        self, cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> list[nn.Module]:
        kind = SameConv2d if self._same else nn.Conv2d
        pad = 0 if self._same else dilation * (kernel // 2)
        conv = kind(cin, cout, kernel, stride, pad, dilation, groups, bias=False)
        init_truncated(conv, 0.09)
        return [conv, BatchNorm(cout, self._momentum), nn.ReLU6(inplace=True)]

    def _separable(self, cin: int, cout: int, stride: int, dilation: int) -> nn.Sequential:
        depthwise = self._conv(cin, cin, 3, stride, dilation, groups=cin)
        return nn.Sequential(*depthwise, *self._conv(cin, cout, 1))

    def freeze(self, stride: int) -> None:
        """Do not train the blocks whose maps have at most this stride (0: train all)."""
        for block, reached in zip(self.model, self._block_strides):
            if reached <= stride:
                block.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps by name of images ``Tensor[N, 3, H, W]``."""
        maps, x = {}, images
        for i, block in enumerate(self.model):
            x = block(x)
            if f"conv{i}" in self.out_channels:
                maps[f"conv{i}"] = x
        return maps


def load_imagenet(backbone: MobileNetV1, weights: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights, leaving out a classifier.

    Args:
        backbone: the network to fill.
        weights: tensors by name: ``model.{0..13}.{0,1,3,4}.*``, perhaps behind ``module.`` or
            ``backbone.``, or timm's ``conv_stem``, ``bn1``, ``blocks.{stage}.{block}.conv_dw``, ...

    Raises:
        ValueError: a weight of the backbone is missing or has another shape.
    """
    wanted = backbone.state_dict()
    found = {}
    for key, value in weights.items():
        key = _block_name(key.removeprefix("module.").removeprefix("backbone."))
        if key in wanted:
            found[key] = value
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    wrong = [k for k in found if found[k].shape != wanted[k].shape]
    if missing or wrong:
        raise ValueError(
            f"load_imagenet: weights must be those of this MobileNetV1, missing {missing[:3]} "
            f"({len(missing)} in all), of another shape {wrong[:3]} ({len(wrong)} in all)"
        )
    backbone.load_state_dict(found, strict=False)


def _block_name(key: str) -> str:
    """Our name of a tensor that timm names; other names as they are."""
    module, _, rest = key.partition(".")
    if module in _TIMM_STEM:
        return f"{_TIMM_STEM[module]}.{rest}"
    match = re.fullmatch(r"blocks\.([0-4])\.(\d)\.(conv_dw|bn1|conv_pw|bn2)\.(\w+)", key)
    if match is None:
        return key
    block = _TIMM_STAGES[int(match[1])] + int(match[2])
    return f"model.{block}.{_TIMM_MODULES[match[3]]}.{match[4]}"
