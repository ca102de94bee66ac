"""The model of a weights file, whichever host or format it is of, ready to be called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segroi.utils.suggest import UsageError

if TYPE_CHECKING:
    from torch import nn

D2_CATEGORIES = "categories.json"  # Detectron2's launchers leave it beside the weights
ONNX = ".onnx"


def load_for_prediction(
    path: str, size: int | None = None, device: str = "", threshold: float = 0.0
) -> tuple[nn.Module, list[dict]]:
    """The model and its categories, for prediction alone: batch norms are folded.

    Args:
        path: weights of ``segroi train`` or of Detectron2's launchers, the folder of either's run,
            or an ONNX file of ``segroi export``.
        size: short side in px that images are resized to, if other than in training.
        device: "cpu", "cuda", ...; default: the GPU where there is one.
        threshold: no detection with a lower score is wanted: time for its mask is saved.
    """
    from segroi.layers.norm import fold_batch_norms
    from segroi.tv.checkpoint import load_model
    from segroi.tv.engine import pick_device
    from segroi.tv.predict import drop_below
    from segroi.tv.run import weights_of

    weights = weights_of(path)
    if weights.suffix == ONNX:
        return _load_onnx(weights, size, device)
    chosen = pick_device(device)
    if not (weights.parent / D2_CATEGORIES).exists():
        overrides = {} if size is None else {"size": size}
        model, info = load_model(weights, **overrides)
        drop_below(model, threshold)
        return fold_batch_norms(model.eval()).to(chosen), info["categories"]
    if size is not None:
        raise UsageError("--size is for weights of torchvision: a run of Detectron2 has its own")
    from segroi.d2.predict import load_run

    model, names = load_run(weights, chosen, threshold)
    drop_below(model, threshold)
    return fold_batch_norms(model.eval()), [{"name": name} for name in names]


def load_detector(*arguments: Any) -> tuple[nn.Module, list[dict]]:
    """As :func:`load_for_prediction`, of models that find instances."""
    from segroi.tv.predict import is_semantic

    model, categories = load_for_prediction(*arguments)
    if is_semantic(model):
        raise UsageError(f"{arguments[0]} segments classes, not instances: segroi predict draws it")
    return model, categories


def _load_onnx(path: Path, size: int | None, device: str) -> tuple[nn.Module, list[dict]]:
    from segroi.tv.export import load_exported

    if size is not None:
        raise UsageError("--size was settled when the ONNX file was exported")
    if device not in ("", "cpu"):
        raise UsageError(f"an ONNX file runs on the CPU here, got --device {device}")
    model = load_exported(path)
    return model, model.info["categories"]
