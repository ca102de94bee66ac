"""GRoIE: features of every pyramid level for every RoI, in four configurable steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segroi.layers import ConvBlock, touch_parameters
from segroi.modeling.roi_extractors.base import RoIExtractor
from segroi.modeling.roi_extractors.modules import build_roi_module

AGGREGATIONS = ("sum", "sum+", "concat", "random", "linear")


class GRoIE(RoIExtractor):
    """RoIAlign on all levels, pre-processing, aggregation, post-processing.

    L. Rossi et al., "A novel Region of Interest Extraction Layer for Instance Segmentation",
    section III; the defaults are its best configuration. `pre="conv7x7", post="non_local7x7"` is
    the extractor of SBR-CNN (section 4.6.3). Where nothing is done to a single level, the levels
    are aggregated while they are sampled and never stored. With one feature map there is nothing
    to aggregate: no module is built and the crop itself is the result, as in the authors' code.

    Args:
        output_size: height and width of the result, cells.
        spatial_scales: 1 / stride of every feature map, fine to coarse.
        in_channels: channels of every feature map and of the result.
        pre: module for the crop of each level, see `ROI_MODULES`.
        aggregation: "sum"; "sum+", a sum and a 1x1 convolution; "concat" and a 1x1 convolution
            back to C channels; "random", one level drawn per RoI and forward pass; "linear", which
            applies `pre` once to the sum: one L-th of the convolutions of "sum".
        post: module for the aggregated crop, see `ROI_MODULES`.
        shared_pre: one pre-processing module for all levels (authors' code) or one per level.
        relu_before_sum: a ReLU on every level's crop before the aggregation, as in the code of the
            first paper's tables.
        sampling_ratio: samples per bin and axis; 0 adapts to the bin size.
        identity_pre: let the convolutions of `pre` ("conv...") start as the identity instead of at
            random: large kernels then blur no crop before they have learned where to look. Not in
            the paper; for short trainings.
        kwargs: alignment and level rule, see `RoIExtractor`.

    Raises:
        ValueError: if the aggregation or a module is unknown, or the settings contradict.

    Example:
        >>> extractor = GRoIE(7, (1 / 4, 1 / 8), in_channels=16)
        >>> features = [torch.rand(1, 16, 32, 32), torch.rand(1, 16, 16, 16)]
        >>> extractor(features, torch.tensor([[0.0, 8, 8, 64, 48]])).shape
        torch.Size([1, 16, 7, 7])
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scales: Sequence[float],
        in_channels: int = 256,
        *,
        pre: str = "conv5x5",
        aggregation: str = "sum",
        post: str = "attention",
        shared_pre: bool = True,
        relu_before_sum: bool = False,
        sampling_ratio: int = 2,
        identity_pre: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            output_size, spatial_scales, in_channels, sampling_ratio=sampling_ratio, **kwargs
        )
        self._check(aggregation, shared_pre, relu_before_sum)
        if identity_pre and not pre.startswith("conv"):
            raise ValueError(f"GRoIE: identity_pre needs a pre of one convolution, got {pre!r}")
        levels = len(self.spatial_scales)
        if levels == 1:
            pre, aggregation, post, shared_pre, relu_before_sum = "none", "sum", "none", True, False
        self.aggregation = aggregation
        self.shared_pre = shared_pre
        self.relu_before_sum = relu_before_sum
        self.fused = pre == "none" and not relu_before_sum
        pres = [build_roi_module(pre, in_channels) for _ in range(1 if shared_pre else levels)]
        for block in pres if identity_pre and pre != "none" else []:
            nn.init.dirac_(block.conv.weight)
        self.pre = pres[0] if shared_pre else nn.ModuleList(pres)
        reduced = {"sum+": in_channels, "concat": levels * in_channels}.get(aggregation)
        self.reduce = ConvBlock(reduced, in_channels, 1) if reduced else nn.Identity()
        self.post = build_roi_module(post, in_channels)

    @staticmethod
    def _check(aggregation: str, shared_pre: bool, relu_before_sum: bool) -> None:
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"GRoIE: aggregation must be in {AGGREGATIONS}, got {aggregation!r}")
        if aggregation in ("random", "linear") and not shared_pre:
            raise ValueError(f"GRoIE: aggregation {aggregation!r} needs shared_pre=True")
        if aggregation == "linear" and relu_before_sum:
            raise ValueError("GRoIE: aggregation 'linear' excludes relu_before_sum=True")

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Extract the RoIs.

        Args:
            features: Tensor[N, C, H_l, W_l] per level, fine to coarse.
            rois: float Tensor[K, 5], (batch index, x0, y0, x1, y1) in px.

        Returns:
            Tensor[K, C, h, w].
        """
        if rois.shape[0] == 0:
            return touch_parameters(self.sample(features, rois, "sum"), self)
        return self.post(self.reduce(self._aggregate(features, rois)))

    def _aggregate(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        if self.aggregation == "linear":
            return self.pre(self.sample(features, rois, "sum"))
        if self.aggregation == "random":
            levels = torch.randint(len(features), (len(rois),), device=rois.device)
            crops = self.pre(self.sample(features, rois, "select", levels))
            return crops.relu() if self.relu_before_sum else crops
        reduce = "concat" if self.aggregation == "concat" else "sum"
        if self.fused:
            return self.sample(features, rois, reduce)
        crops = self._preprocess(self.sample(features, rois, "stack"))
        return crops.flatten(1, 2) if reduce == "concat" else crops.sum(dim=1)

    def _preprocess(self, crops: Tensor) -> Tensor:
        """Treat the levels of Tensor[K, L, C, h, w] one by one."""
        if self.shared_pre:
            crops = self.pre(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])
        else:
            levels = zip(self.pre, crops.unbind(dim=1), strict=True)
            crops = torch.stack([module(crop) for module, crop in levels], dim=1)
        return crops.relu() if self.relu_before_sum else crops
