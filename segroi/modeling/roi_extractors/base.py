"""What every RoI extractor has in common."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segroi import ops


class RoIExtractor(nn.Module):
    """Base of the extractors: features of a pyramid in, one fixed-size map per RoI out.

    Args:
        output_size: height and width of the result, cells.
        spatial_scales: 1 / stride of every feature map, fine to coarse.
        out_channels: channels of the result.
        sampling_ratio: samples per bin and axis; 0 adapts to the bin size.
        aligned: whether boxes are shifted by half a pixel.
        canonical_size: side in px of the box that goes to `canonical_level`.
        canonical_level: level (log2 of the stride) of a box of `canonical_size`.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scales: Sequence[float],
        out_channels: int,
        *,
        sampling_ratio: int = 0,
        aligned: bool = True,
        canonical_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        square = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.output_size: tuple[int, int] = square
        self.spatial_scales = tuple(spatial_scales)
        self.out_channels = out_channels
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level

    def sample(
        self,
        features: Sequence[Tensor],
        rois: Tensor,
        reduce: str,
        levels: Tensor | None = None,
        output_size: tuple[int, int] | None = None,
        sampling_ratio: int | None = None,
    ) -> Tensor:
        """Run RoIAlign over the pyramid; see `segroi.ops.multi_level_roi_align`."""
        return ops.multi_level_roi_align(
            features,
            rois,
            output_size or self.output_size,
            self.spatial_scales,
            self.sampling_ratio if sampling_ratio is None else sampling_ratio,
            self.aligned,
            reduce=reduce,
            levels=levels,
            canonical_size=self.canonical_size,
            canonical_level=self.canonical_level,
        )

    def extra_repr(self) -> str:
        """Show the geometry in the printed module."""
        return f"output_size={self.output_size}, spatial_scales={self.spatial_scales}"
