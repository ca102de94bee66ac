"""Which models can be exported: a function of one image for every kind of model."""

from __future__ import annotations

from functools import singledispatch

from torch import nn
from torchvision.models.detection import FasterRCNN

from segroi.modeling.ssd.ssd_isb import SSDISB
from segroi.tv.export.rcnn import ExportableRCNN
from segroi.tv.export.semantic import ExportableSemantic
from segroi.tv.export.ssd_isb import ExportableSSDISB
from segroi.tv.semantic import SemanticSegmenter
from segroi.utils.suggest import UsageError


@singledispatch
def exportable(model: nn.Module) -> nn.Module:
    """A model as a module that a graph can hold; its weights are shared, its mode is eval.

    Another kind of model joins by ``@exportable.register``.

    Args:
        model: one of ``segroi.tv.models``.

    Returns:
        A module that takes one image, float32 Tensor[3, H, W] in 0..1, and returns a tuple of
        tensors; its attribute ``outputs`` holds their names. They are those of the model's dict.

    Raises:
        UsageError: there is no path for this kind of model.
    """
    raise UsageError(f"models of class {type(model).__name__} cannot be exported")


@exportable.register
def _(model: FasterRCNN) -> nn.Module:  # Mask R-CNN is one
    return ExportableRCNN(model).eval()


@exportable.register
def _(model: SSDISB) -> nn.Module:
    return ExportableSSDISB(model).eval()


@exportable.register
def _(model: SemanticSegmenter) -> nn.Module:
    return ExportableSemantic(model).eval()
