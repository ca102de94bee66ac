"""The multi-scale subnetwork: one RoI cropped at several resolutions, averaged and fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from segroi import ops
from segroi.layers import ConvBlock, NormFactory, touch_parameters
from segroi.modeling.roi_extractors.base import RoIExtractor
from segroi.modeling.roi_extractors.convolve_maps import convolve_maps, pixels_read
from segroi.ops._checks import wrong
from segroi.ops._layout import empty_large, is_channels_last
from segroi.ops.multi_level_roi_align import check_features, check_rois
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
    fewer pixels. Of the maps only pixels that an RoI reads count, where counting them does not mean
    waiting (inference on a CPU). Outside the image a sample is 0 before the convolution, so the
    bias is added after the sampling. Without a nonlinearity between (relu=False, and no norm or one
    with fixed statistics) it commutes with averaging, too: then crops are averaged while they are
    sampled.

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

        Raises:
            TypeError, ValueError: as `segroi.ops.multi_level_roi_align`; if channels are missing.
        """
        self._check(features, rois)
        if rois.shape[0] == 0:  # without samples, batch statistics would be spoilt
            empty = features[0].new_zeros(0, self.out_channels, *self.output_size)
            return touch_parameters(empty + sum(f[:0].sum() for f in features), self)
        graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # serves other RoIs later
        inference = not graph and not torch.is_grad_enabled()
        # elsewhere than on a CPU a count of pixels is a synchronisation, and a fake tensor has none
        countable = type(rois) is Tensor and rois.device.type == "cpu"
        where = self._pixels_read(features, rois) if inference and countable else None
        branches = self._prepare(features, rois, where)
        if not inference or not all(map(_is_affine, self.branches)):
            return self.fuse(torch.cat([self._pool(branch, rois) for branch in branches], dim=1))
        return self.fuse(self._pool_in_pieces(branches, rois))

    def _check(self, features: Sequence[Tensor], rois: Tensor) -> None:
        """Maps and RoIs are worked on before an operator sees them."""
        check_features(list(features), self.spatial_scales)
        check_rois(features[0], rois, None, "select")
        channels = self.branches[0].conv.in_channels
        if features[0].shape[1] != channels:
            expected = f"of {channels} channels"
            raise wrong(ValueError, "MultiScaleSubnetwork", "features", expected, features[0])

    @property
    def is_linear(self) -> bool:
        """Whether every branch is, at this moment, an affine map of each pixel."""
        return not self.relu and all(_is_affine(block) for block in self.branches)

    def _pixels_read(self, features: Sequence[Tensor], rois: Tensor) -> list[Tensor]:
        """``bool Tensor[N, H_l, W_l]`` per level: the pixels that some sample reads."""
        levels = box_levels(rois, self.spatial_scales, self.canonical_size, self.canonical_level)
        half = 0.5 if self.coordinates == "aligned" and self.aligned else 0
        read = []
        for level, (feature, scale) in enumerate(zip(features, self.spatial_scales, strict=True)):
            index, boxes = rois[levels == level].split([1, 4], dim=1)
            boxes = boxes * scale - half
            boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 1)  # RoIAlign without half pixels
            size = (feature.shape[0], *feature.shape[2:])
            read.append(pixels_read(boxes, index[:, 0], size))
        return read

    def _prepare(
        self, features: Sequence[Tensor], rois: Tensor, where: Sequence[Tensor] | None
    ) -> list[_Branch]:
        """Convolve maps where they have fewer pixels than the crops; all branches at once."""
        linear, exporting = self.is_linear, torch.compiler.is_exporting()
        if where is None:
            where = [None] * len(features)
            pixels = sum(f.shape[0] * f.shape[2] * f.shape[3] for f in features)
        else:
            pixels = sum(int(read.sum()) for read in where)
        folded = [_fold(block) for block in self.branches]
        pools = [factor if linear else 1 for factor in self.factors]
        cells = [self._cells(*each, rois.shape[0]) for each in zip(self.factors, pools)]
        # an exported graph cannot choose: it has many boxes
        on_crops = [not exporting and pixels > count for count in cells]
        weights = [weight for (weight, _), crops in zip(folded, on_crops) if not crops]
        convolved = iter(convolve_maps(features, weights, where))
        if rois.device.type == "cpu" and any(on_crops):
            # a 1x1 convolution of channels-last crops is one product of matrices there
            features = [f.contiguous(memory_format=torch.channels_last) for f in features]
        branches = []
        for i, (weight, bias) in enumerate(folded):
            rest = list(self.branches[i].children())[1:]
            if _is_affine(self.branches[i]):
                rest = [layer for layer in rest if isinstance(layer, nn.ReLU)]
            what = (features, weight) if on_crops[i] else (next(convolved), None)
            branches.append(_Branch(*what, bias, rest, self.factors[i], pools[i]))
        return branches

    def _cells(self, factor: int, pool: int, rois: int = 1) -> int:
        """Cells of the crops that a branch keeps."""
        return rois * self.output_size[0] * self.output_size[1] * (factor // pool) ** 2

    def _pool(self, branch: _Branch, rois: Tensor) -> Tensor:
        """``Tensor[K, out_channels, h, w]`` of one branch."""
        x = self._crop(branch.maps, rois, branch.factor, branch.pool)
        if branch.weight is not None:
            x = F.conv2d(x, branch.weight, branch.bias)
        elif branch.bias is not None:
            x = x.add_(branch.bias.to(x.dtype)[:, None, None])
        for layer in branch.rest:
            x = layer(x)
        left = branch.factor // branch.pool
        return F.avg_pool2d(x, left) if left > 1 else x

    def _pool_in_pieces(self, branches: Sequence[_Branch], rois: Tensor) -> Tensor:
        """All branches side by side, some RoIs at a time."""
        size, channels = AT_ONCE.get(rois.device.type, AT_ONCE["cuda"]), self.out_channels
        result = None
        for i, branch in enumerate(branches):
            step = max(1, size // (self._cells(branch.factor, branch.pool) * channels))
            for begin in range(0, rois.shape[0], step):
                x = self._pool(branch, rois[begin : begin + step])
                if result is None:
                    shape = (rois.shape[0], len(branches) * channels, *self.output_size)
                    result = empty_large(x, shape, is_channels_last(x))
                result[begin : begin + step, i * channels : (i + 1) * channels] = x
        return result

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


@dataclass
class _Branch:
    """What one branch does in one call."""

    maps: Sequence[Tensor]
    weight: Tensor | None  # for the crops; None: the maps are convolved
    bias: Tensor | None
    rest: list[nn.Module]
    factor: int  # size of the crop in sizes of the output
    pool: int  # samples a side that are averaged while sampling


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


def _fold(branch: ConvBlock) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the 1x1 convolution, with the norm's statistics where they are fixed."""
    conv, norm = branch.conv, getattr(branch, "norm", None)
    if norm is None or not _is_affine(branch):
        return conv.weight, conv.bias
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
