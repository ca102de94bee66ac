"""Semantic segmentation with low-cost networks (SSD-ISB thesis, chapter 4).

Legend: images N,3,H,W, logits N,C,H,W, labels N,H,W (int64).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from segroi.modeling.heads.fcn_decoder import FCNDecoder

IGNORE_LABEL = 255


class LowCostSegmenter(nn.Module):
    """An encoder, an FCN decoder and bilinear upsampling to the size of the image.

    Args:
        encoder: maps images to a dict of feature maps, with ``out_channels`` by map name.
        num_classes: channels of the logits.
        output: name of the coarsest map.
        skips: names of the skips, fine to coarse; empty for no decoder.
    """

    def __init__(
        self, encoder: nn.Module, num_classes: int, output: str, skips: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.encoder, self.output, self.skips = encoder, output, tuple(skips)
        channels = encoder.out_channels
        self.decoder = FCNDecoder(channels[output], [channels[s] for s in skips], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``Tensor[N, num_classes, H, W]`` of images ``Tensor[N, 3, H, W]``."""
        maps = self.encoder(images)
        logits = self.decoder(maps[self.output], [maps[name] for name in self.skips])
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


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
