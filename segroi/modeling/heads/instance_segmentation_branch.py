"""Instance segmentation branch: a small FCN on the crop of one instance (SSD-ISB, section 3.2.1).

Legend: R crops, h x w cells of the coarsest map; a skip of factor f has f * h x f * w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segroi.layers.tensorflow import init_truncated

COORDINATES = 3  # channels of `box_coordinates`


class InstanceSegmentationBranch(nn.Module):
    """One separable conv, then for each skip a transposed conv and the added skip, then the score.

    There is no normalisation, and no activation but the ReLU behind the separable conv. The score
    is computed at the resolution of the last skip (upsampling it bilinearly afterwards commutes
    with the 1x1 conv). The FCN8 branch of the thesis has 247,073 parameters.

    Args:
        in_channels: channels of the coarsest crop.
        skip_channels: channels of the skips, coarse to fine: two for FCN8, one for FCN16, none.
        num_classes: masks of an instance; 1 is class-agnostic.
        atrous_rate: dilation of the separable conv.
        condition_on_box: add three channels that tell where the box lies to every crop, so that two
            objects with the same crop can have different masks. Beyond the thesis.
    """

    def __init__(
        self,
        in_channels: int = 1024,
        skip_channels: Sequence[int] = (512, 256),
        num_classes: int = 1,
        atrous_rate: int = 1,
        condition_on_box: bool = False,
        hidden_channels: int = 128,
        step_channels: int = 32,
    ) -> None:
        super().__init__()
        self.condition_on_box = condition_on_box
        more = COORDINATES if condition_on_box else 0
        cin = in_channels + more
        self.depthwise = nn.Conv2d(
            cin, cin, 3, padding=atrous_rate, dilation=atrous_rate, groups=cin, bias=False
        )
        self.pointwise = nn.Conv2d(cin, hidden_channels, 1)
        widths = [hidden_channels, *[step_channels] * len(skip_channels)]
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in zip(widths, widths[1:])
        )
        self.skips = nn.ModuleList(nn.Conv2d(c + more, step_channels, 1) for c in skip_channels)
        self.score = nn.Conv2d(widths[-1], num_classes, 1)
        for conv in self.modules():
            if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
                init_truncated(conv)

    @property
    def scale(self) -> int:
        """Pixels of the result in a cell of the coarsest map, along an axis."""
        return 2 ** len(self.skips)

    def forward(self, crops: Sequence[Tensor]) -> Tensor:
        """Mask logits of the instances.

        Args:
            crops: Tensor[R, C, f * h, f * w] for f = 1, 2, 4 (one more than there are skips), with
                the coordinate channels where the branch is conditioned on the box.

        Returns:
            Tensor[R, num_classes, scale * h, scale * w].
        """
        if len(crops) != len(self.skips) + 1:
            raise ValueError(
                f"InstanceSegmentationBranch: crops must be {len(self.skips) + 1} tensors, "
                f"got {len(crops)}"
            )
        x = torch.relu(self.pointwise(self.depthwise(crops[0])))
        for upsample, conv, skip in zip(self.upsample, self.skips, crops[1:]):
            x = upsample(x) + conv(skip)
        return self.score(x)


def box_coordinates(regions: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Where the pixels of crops lie relative to the boxes.

    Args:
        regions: Tensor[R, 4] xyxy, what the crops show.
        boxes: Tensor[R, 4] xyxy in the same units.
        height: rows of the crops.
        width: columns of the crops.

    Returns:
        Tensor[R, 3, height, width]: x and y from the centre of the box in units of half its sides,
        clipped to [-2, 2], and 1 inside the box.
    """
    axes = []
    for axis, n in ((0, width), (1, height)):
        steps = (torch.arange(n, device=boxes.device, dtype=boxes.dtype) + 0.5) / n
        low, high = regions[:, axis, None], regions[:, axis + 2, None]
        b0, b1 = boxes[:, axis, None], boxes[:, axis + 2, None]
        position = low + steps * (high - low)
        axes.append(((2 * position - b0 - b1) / (b1 - b0).clamp(min=1e-6)).clamp(-2, 2))
    x = axes[0][:, None, :].expand(-1, height, -1)
    y = axes[1][:, :, None].expand(-1, -1, width)
    inside = ((x.abs() <= 1) & (y.abs() <= 1)).to(x.dtype)
    return torch.stack([x, y, inside], dim=1)
