"""The baseline: RoIAlign on the one level that a box's size selects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from segroi.modeling.roi_extractors.base import RoIExtractor


class SingleLevelRoIExtractor(RoIExtractor):
    """RoIAlign on one level per RoI (T.-Y. Lin et al., "Feature Pyramid Networks", eq. (1)).

    Args:
        output_size: height and width of the result, cells.
        spatial_scales: 1 / stride of every feature map, fine to coarse.
        in_channels: channels of every feature map.
        kwargs: sampling and level rule, see `RoIExtractor`.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scales: Sequence[float],
        in_channels: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(output_size, spatial_scales, in_channels, **kwargs)

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Extract the RoIs.

        Args:
            features: Tensor[N, C, H_l, W_l] per level, fine to coarse.
            rois: float Tensor[K, 5], (batch index, x0, y0, x1, y1) in px.

        Returns:
            Tensor[K, C, h, w].
        """
        return self.sample(features, rois, "select")
