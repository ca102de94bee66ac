"""The multi-scale subnetwork: one RoI cropped at several resolutions, averaged and fused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from segroi import ops
from segroi.layers import ConvBlock, NormFactory, touch_parameters
from segroi.modeling.roi_extractors.base import RoIExtractor
from segroi.ops.reference.multi_level_roi_align import box_levels

# Values of the crops that inference holds at a time: a CPU's cache should keep them until they are
# averaged, a GPU should not be kept waiting for launches.
AT_ONCE = {"cpu": 2**22, "cuda": 2**28}


class MultiScaleSubnetwork(RoIExtractor):
    """Crop each RoI at several sizes, 1x1 convolution, average to one size, concatenate, fuse.

    "Multi-scale Subnetwork for RoI Pooling for Instance Segmentation", section III-A and Fig. 3.
    Branch i crops to `crop_sizes[i]`, then 1x1 convolution, norm and ReLU, then average pooling.
    With several feature maps the RoI's size selects one, and all levels share the weights.

    A 1x1 convolution commutes with sampling, so it runs on the maps or on the crops, whichever have
    fewer pixels; outside the image a sample is 0 before the convolution, so the bias is added after
    the sampling. Without a nonlinearity between (relu=False, and no norm or one with fixed
    statistics) it commutes with averaging, too: then crops are averaged while they are sampled.

    Args:
        output_size: height and width of the result, cells.
        spatial_scales: 1 / stride of every feature map, fine to coarse.
        in_channels: channels of every feature map.
        out_channels: channels of the branches and of the result.
        crop_sizes: height of each branch's crop, multiples of the output's; None for 1, 2 and 4
            times the output (14, 28, 56).
        coordinates: "aligned", RoIAlign's half-pixel sampling; "tf", TensorFlow's crop_and_resize
            with its corner-aligned samples.
        norm: normalisation after the 1x1 convolutions, see `build_norm`.
        relu: whether a ReLU follows the norm.
        fuse_kernel: kernel of the convolution after the concatenation (with bias and ReLU).
        kwargs: level rule, see `RoIExtractor`.

    Raises:
        ValueError: if a crop size is not a multiple of the output size, or coordinates are unknown.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scales: Sequence[float],
        in_channels: int = 256,
        out_channels: int = 256,
        *,
        crop_sizes: Sequence[int] | None = None,
        coordinates: Literal["aligned", "tf"] = "aligned",
        norm: str | NormFactory | None = "BN",
        relu: bool = True,
        fuse_kernel: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(output_size, spatial_scales, out_channels, **kwargs)
        if coordinates not in ("aligned", "tf"):
            raise ValueError(
                f"MultiScaleSubnetwork: coordinates must be 'aligned' or 'tf', got {coordinates!r}"
            )
        self.coordinates = coordinates
        self.relu = relu
        self.factors = self._crop_factors(crop_sizes)
        self.branches = nn.ModuleList(
            ConvBlock(in_channels, out_channels, 1, norm=norm, activation=relu)
            for _ in self.factors
        )
        self.fuse = ConvBlock(len(self.factors) * out_channels, out_channels, fuse_kernel)

    def _crop_factors(self, crop_sizes: Sequence[int] | None) -> tuple[int, ...]:
        if crop_sizes is None:
            return (1, 2, 4)
        height = self.output_size[0]
        if any(size < height or size % height for size in crop_sizes):
            raise ValueError(
                f"MultiScaleSubnetwork: crop_sizes must be multiples of the output size {height}, "
                f"got {tuple(crop_sizes)}"
            )
        return tuple(size // height for size in crop_sizes)

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Extract the RoIs.

        Args:
            features: Tensor[N, C, H_l, W_l] per level, fine to coarse.
            rois: float Tensor[K, 5], (batch index, x0, y0, x1, y1) in px.

        Returns:
            Tensor[K, out_channels, h, w].
        """
        if rois.shape[0] == 0:  # without samples, batch statistics would be spoilt
            empty = features[0].new_zeros(0, self.out_channels, *self.output_size)
            return touch_parameters(empty + sum(f[:0].sum() for f in features), self)
        if rois.device.type == "cpu" and not torch.compiler.is_exporting():
            # a 1x1 convolution of channels-last maps or crops is one product of matrices there
            features = [f.contiguous(memory_format=torch.channels_last) for f in features]
        branches = zip(self.branches, self.factors, strict=True)
        pooled = [self._branch(block, features, rois, factor) for block, factor in branches]
        return self.fuse(torch.cat(pooled, dim=1))

    @property
    def is_linear(self) -> bool:
        """Whether every branch is, at this moment, an affine map of each pixel."""
        return not self.relu and all(_is_affine(block) for block in self.branches)

    def _branch(
        self, block: ConvBlock, features: Sequence[Tensor], rois: Tensor, factor: int
    ) -> Tensor:
        affine = _is_affine(block)
        weight, bias = _fold(block) if affine else (block.conv.weight, block.conv.bias)
        rest = list(block.children())[1:]
        if affine:
            rest = [layer for layer in rest if isinstance(layer, nn.ReLU)]
        pool = factor if self.is_linear else 1
        pixels = sum(f.shape[0] * f.shape[2] * f.shape[3] for f in features)
        cells = rois.shape[0] * self.output_size[0] * self.output_size[1] * (factor // pool) ** 2
        # an exported graph cannot choose: it has many boxes
        on_crops = not torch.compiler.is_exporting() and pixels > cells
        maps = features if on_crops else [F.conv2d(f, weight) for f in features]

        def pooled(rois: Tensor) -> Tensor:
            x = self._crop(maps, rois, factor, pool)
            if on_crops:
                x = F.conv2d(x, weight, bias)
            elif bias is not None:
                x = x.add_(bias.to(x.dtype)[:, None, None])
            for layer in rest:
                x = layer(x)
            return F.avg_pool2d(x, factor // pool) if factor > pool else x

        if not affine or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return pooled(rois)
        size = AT_ONCE.get(rois.device.type, AT_ONCE["cuda"])
        step = max(1, size * rois.shape[0] // (cells * self.out_channels))
        return torch.cat([pooled(some) for some in rois.split(step)])

    def _crop(self, features: Sequence[Tensor], rois: Tensor, factor: int, pool: int = 1) -> Tensor:
        """Sample crops of `factor` times the output size, averaged over `pool` x `pool` samples."""
        height, width = (factor * side for side in self.output_size)
        if self.coordinates == "aligned":
            # RoIAlign with k x k samples in a bin is RoIAlign in k times finer bins, averaged.
            size = (height // pool, width // pool)
            return self.sample(features, rois, "select", output_size=size, sampling_ratio=pool)
        return self._crop_tf(features, rois, (height, width), pool)

    def _crop_tf(
        self, features: Sequence[Tensor], rois: Tensor, size: tuple[int, int], pool: int
    ) -> Tensor:
        levels = box_levels(rois, self.spatial_scales, self.canonical_size, self.canonical_level)
        crops, rows = [], []
        for level, (feature, scale) in enumerate(zip(features, self.spatial_scales, strict=True)):
            row = (levels == level).nonzero()[:, 0]
            boxes = _normalise_boxes(rois[row, 1:] * scale, feature.shape[-2:])
            index = rois[row, 0].int()
            crops.append(ops.crop_and_resize(feature, boxes, index, size, pool=pool))
            rows.append(row)
        return torch.cat(crops)[torch.cat(rows).argsort()]


def _normalise_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """TensorFlow's (y0, x0, y1, x1) with 1 at the last cell, from xyxy in cells."""
    height, width = size
    span = boxes.new_tensor([height - 1, width - 1, height - 1, width - 1]).clamp(min=1)
    return boxes[:, [1, 0, 3, 2]] / span


def _is_affine(branch: ConvBlock) -> bool:
    norm = getattr(branch, "norm", None)
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return not norm.training and norm.running_mean is not None and norm.affine
    return norm is None or isinstance(norm, FrozenBatchNorm2d)


def _fold(branch: ConvBlock) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 1x1 convolution with the norm's fixed statistics folded in."""
    conv, norm = branch.conv, getattr(branch, "norm", None)
    if norm is None:
        return conv.weight, conv.bias
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
