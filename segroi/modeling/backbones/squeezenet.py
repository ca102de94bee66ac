"""SqueezeNet v1.1 as an encoder for dense prediction.

Legend: images N,3,H,W; the map of stride s has ceil(H / s) x ceil(W / s) cells.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import squeezenet1_1
from torchvision.models.squeezenet import Fire

_POOLS = (2, 5, 8)  # places of the max pools in `features`; each halves the map
_MAPS = {"pool1": 2, "pool3": 5, "fire9": 12}  # last layer of each map


class SqueezeNet(nn.Module):
    """torchvision's SqueezeNet v1.1 without its classifier, at output stride 16 or 8.

    Parameters and their names are torchvision's, so its ImageNet weights load (without
    ``classifier``). Its padding is not: conv and pools are padded by one on every side, so that a
    stride halves any size, rounding up, and cell i of a map lies over pixel stride * i.

    Args:
        output_stride: 8 keeps the last pool's resolution and dilates the fire modules behind it.
        last_atrous_rate: multiplies the dilation of the last fire module.

    Example:
        >>> maps = SqueezeNet(output_stride=8)(torch.zeros(1, 3, 65, 64))
        >>> {name: list(x.shape) for name, x in maps.items()}
        {'pool1': [1, 64, 17, 16], 'pool3': [1, 128, 9, 8], 'fire9': [1, 512, 9, 8]}
    """

    out_channels = {"pool1": 64, "pool3": 128, "fire9": 512}

    def __init__(self, output_stride: int = 16, last_atrous_rate: int = 1) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise ValueError(f"SqueezeNet: output_stride must be 8 or 16, got {output_stride}")
        self.strides = {"pool1": 4, "pool3": 8, "fire9": output_stride}
        self.features = squeezenet1_1(weights=None).features
        self.features[0].padding = (1, 1)
        for index in _POOLS:
            self.features[index] = nn.MaxPool2d(3, stride=2, padding=1)
        rate = 16 // output_stride
        if rate == 2:
            self.features[_POOLS[-1]].stride = 1
        for fire in self.features[_POOLS[-1] + 1 :]:
            _dilate(fire, rate)
        _dilate(self.features[-1], rate * last_atrous_rate)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps ``pool1`` (stride 4), ``pool3`` (8), ``fire9`` of images ``Tensor[N, 3, H, W]``."""
        maps, x, start = {}, images, 0
        for name, last in _MAPS.items():
            x = maps[name] = self.features[start : last + 1](x)
            start = last + 1
        return maps


def _dilate(fire: Fire, rate: int) -> None:
    fire.expand3x3.dilation = fire.expand3x3.padding = (rate, rate)
