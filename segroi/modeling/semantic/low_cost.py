"""Semantic segmentation with low-cost networks (SSD-ISB thesis, chapter 4).

Legend: images N,3,H,W, logits N,C,H,W, labels N,H,W (int64).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from segroi.layers.norm import freeze_statistics
from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1
from segroi.modeling.backbones.squeezenet import SqueezeNet
from segroi.modeling.heads.fcn_decoder import FCNDecoder

IGNORE_LABEL = 255

# Encoder, its last map, and the maps that a decoder may add, fine to coarse.
ENCODERS: dict[str, tuple[type[nn.Module], str, tuple[str, ...]]] = {
    "mobilenet_v1": (MobileNetV1, "conv13", ("conv5", "conv11")),
    "squeezenet": (SqueezeNet, "fire9", ("pool1", "pool3")),
}


class LowCostSegmenter(nn.Module):
    """An encoder, an FCN decoder and bilinear upsampling to the size of the image.

    Args:
        encoder: maps images to a dict of feature maps; has ``out_channels`` and ``strides`` by
            name of the map.
        num_classes: channels of the logits.
        output: name of the coarsest map.
        skips: names of the skips, fine to coarse; empty for no decoder.
        frozen_statistics: keep batch norm statistics in training, too; scale and shift still learn.
            Batches are too small to estimate them (one image of Cityscapes).

    Raises:
        ValueError: if a skip has not half the stride of the next coarser map.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_classes: int,
        output: str,
        skips: Sequence[str] = (),
        frozen_statistics: bool = True,
    ) -> None:
        super().__init__()
        check_skips(encoder.strides, [*skips, output])
        # named as in Detectron2's SemanticSegmentor, so that weights go from host to host
        self.backbone, self.output, self.skips = encoder, output, tuple(skips)
        self.frozen_statistics = frozen_statistics
        channels = encoder.out_channels
        self.sem_seg_head = FCNDecoder(channels[output], [channels[s] for s in skips], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``Tensor[N, num_classes, H, W]`` of images ``Tensor[N, 3, H, W]``."""
        maps = self.backbone(images)
        logits = self.sem_seg_head(maps[self.output], [maps[name] for name in self.skips])
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def train(self, mode: bool = True) -> LowCostSegmenter:
        """Set the mode, but leave frozen batch norm statistics alone."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self.backbone)
        return self


def build_low_cost_segmenter(
    encoder: str = "mobilenet_v1",
    steps: int = 0,
    num_classes: int = 19,
    frozen_statistics: bool = True,
    **kwargs: Any,
) -> LowCostSegmenter:
    """A row of the thesis's Table 4.2, or any other combination.

    Args:
        encoder: name in ``ENCODERS``.
        steps: decoder steps: 0, 1 (FCN-16 on MobileNet, FCN-8 on SqueezeNet) or 2 (FCN-8, FCN-4).
        num_classes: 19 for Cityscapes, 2 for person crops.
        frozen_statistics: see :class:`LowCostSegmenter`.
        **kwargs: arguments of the encoder, for instance ``depth_multiplier=0.5``,
            ``output_stride=8``, ``last_atrous_rate=3``.

    Example:
        >>> model = build_low_cost_segmenter(steps=2, depth_multiplier=0.5)
        >>> model(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 19, 64, 96])
    """
    parts = low_cost_parts(encoder, steps, **kwargs)
    return LowCostSegmenter(parts[0], num_classes, *parts[1:], frozen_statistics)


def low_cost_parts(
    encoder: str, steps: int, **kwargs: Any
) -> tuple[nn.Module, str, tuple[str, ...]]:
    """The encoder, its last map and the skips; arguments as of `build_low_cost_segmenter`."""
    if encoder not in ENCODERS:
        raise ValueError(f"encoder must be among {sorted(ENCODERS)}, got {encoder!r}")
    kind, output, skips = ENCODERS[encoder]
    if not 0 <= steps <= len(skips):
        raise ValueError(f"decoder steps must be 0 to {len(skips)}, got {steps}")
    return kind(**kwargs), output, skips[len(skips) - steps :]


def check_skips(strides: dict[str, int], maps: Sequence[str]) -> None:
    """Raise ValueError unless each map, fine to coarse, has half the stride of the next."""
    chain = [strides[name] for name in maps]
    if any(2 * fine != coarse for fine, coarse in zip(chain, chain[1:])):
        raise ValueError(
            f"the strides of the maps {list(maps)} must double from map to map, got {chain}: "
            "a decoder needs the encoder at its full output stride"
        )


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_label: int = IGNORE_LABEL,
    reduction: Literal["sum", "mean"] = "sum",
) -> Tensor:
    """Softmax cross-entropy of the pixels that have a label (thesis, section 4.2.2).

    Args:
        logits: ``Tensor[N, C, H, W]``.
        labels: int64 ``Tensor[N, H, W]`` in [0, C) or ``ignore_label``.
        ignore_label: label of the pixels that are left out.
        reduction: ``"sum"`` over an image's pixels, averaged over the images, as in the thesis, or
            ``"mean"`` over the labelled pixels of the batch.

    Returns:
        A float32 scalar; 0 if no pixel has a label.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"segmentation_loss: reduction must be sum or mean, got {reduction!r}")
    total = F.cross_entropy(logits.float(), labels, ignore_index=ignore_label, reduction="sum")
    if reduction == "sum":
        return total / max(len(labels), 1)
    return total / (labels != ignore_label).sum().clamp(min=1)
