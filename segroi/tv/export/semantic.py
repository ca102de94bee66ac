"""Semantic segmentation of one image."""

from __future__ import annotations

from torch import Tensor, nn

from segroi.tv.semantic import SemanticSegmenter


class ExportableSemantic(nn.Module):
    """A model of :func:`segroi.tv.semantic.build_semantic` as a function of one image.

    Args:
        model: the trained model.
    """

    outputs = ("semantic",)

    def __init__(self, model: SemanticSegmenter) -> None:
        super().__init__()
        self.model = model
        # torch.export would settle whether the example image needed padding after its resizing
        self.resizes = model.size > 0

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """The class of each pixel, int64 Tensor[H, W], of a float32 Tensor[3, H, W] in 0..1."""
        return (self.model([image])[0]["semantic"],)
