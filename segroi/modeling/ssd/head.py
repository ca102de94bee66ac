"""Extra feature layers and predictors of the Object Detection API's ssd_mobilenet_v1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segroi.layers.tensorflow import BatchNorm, SameConv2d, init_truncated
from segroi.modeling.backbones.mobilenet_v1 import scaled_depth

_EXTRA_DEPTHS = (512, 256, 256, 128)
_MIN_DEPTH = 16


class ExtraLayers(nn.ModuleList):
    """Four layers that halve the map: a 1x1 conv of half the depth, then a 3x3 conv of stride 2.

    Args:
        in_channels: channels of the coarsest map of the backbone.
        depth_multiplier: factor of all channel counts.
        norm_momentum: weight of a new batch in the running statistics.
    """

    def __init__(
        self, in_channels: int, depth_multiplier: float = 1.0, norm_momentum: float = 0.0003
    ) -> None:
        super().__init__()
        self.out_channels = []
        for depth in _EXTRA_DEPTHS:
            middle = scaled_depth(depth // 2, depth_multiplier, _MIN_DEPTH)
            out = scaled_depth(depth, depth_multiplier, _MIN_DEPTH)
            layers = []
            for conv in (
                SameConv2d(in_channels, middle, 1, bias=False),
                SameConv2d(middle, out, 3, stride=2, bias=False),
            ):
                init_truncated(conv)
                layers += [
                    conv,
                    BatchNorm(conv.out_channels, norm_momentum),
                    nn.ReLU6(inplace=True),
                ]
            self.append(nn.Sequential(*layers))
            self.out_channels.append(out)
            in_channels = out

    def forward(self, x: Tensor) -> list[Tensor]:
        """The four maps, fine to coarse."""
        maps = []
        for layer in self:
            x = layer(x)
            maps.append(x)
        return maps


class SSDHead(nn.Module):
    """1x1 convs that predict boxes and class scores in each cell of each map.

    Args:
        in_channels: channels of the maps, fine to coarse.
        anchors: anchors in a cell of each map.
        num_outputs: class scores of an anchor, background included.
    """

    def __init__(
        self, in_channels: Sequence[int], anchors: Sequence[int], num_outputs: int
    ) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        pairs = list(zip(in_channels, anchors))
        self.box = nn.ModuleList(nn.Conv2d(c, 4 * a, 1) for c, a in pairs)
        self.cls = nn.ModuleList(nn.Conv2d(c, num_outputs * a, 1) for c, a in pairs)
        for conv in (*self.box, *self.cls):
            init_truncated(conv)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Box offsets Tensor[N, A, 4] and logits Tensor[N, A, num_outputs] of all anchors."""
        boxes = [_per_anchor(conv(x), 4) for conv, x in zip(self.box, maps)]
        logits = [_per_anchor(conv(x), self.num_outputs) for conv, x in zip(self.cls, maps)]
        return torch.cat(boxes, dim=1), torch.cat(logits, dim=1)


def _per_anchor(x: Tensor, values: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
