"""Trained models as files that other runtimes read: torch.export, ONNX, TorchScript."""

from segroi.tv.export.exportable import exportable
from segroi.tv.export.formats import FORMATS, export_model
from segroi.tv.export.parity import Parity, check_parity
from segroi.tv.export.runtime import ExportedModel, load_exported

__all__ = [
    "FORMATS",
    "ExportedModel",
    "Parity",
    "check_parity",
    "export_model",
    "exportable",
    "load_exported",
]
