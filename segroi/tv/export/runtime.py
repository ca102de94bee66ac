"""Exported files, run: called as the models of this host are."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segroi.tv.export.formats import FORMATS, INFO, ONNX_INFO
from segroi.utils.suggest import UsageError, existing_file

_Run = Callable[[Tensor], Sequence[Tensor]]


class ExportedModel(nn.Module):
    """An exported file in the place of a model: a list of images in, a list of dicts out.

    Args:
        run: runs one image, float32 ``[3, H, W]``.
        info: what the file says of itself: ``outputs``, ``categories``, ``image_size``, ...
    """

    def __init__(self, run: _Run, info: dict[str, Any]) -> None:
        super().__init__()
        self.run = run
        self.info = info

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """The outputs of each image by name, as the trained model gives them."""
        return [dict(zip(self.info["outputs"], self._one(image), strict=True)) for image in images]

    def _one(self, image: Tensor) -> Sequence[Tensor]:
        size = self.info["image_size"]
        if size is not None and list(image.shape[-2:]) != list(size):
            raise UsageError(
                f"this file was exported for images of {size[0]} x {size[1]} px (height, width), "
                f"got {image.shape[-2]} x {image.shape[-1]}"
            )
        return self.run(image.float().cpu())


def load_exported(path: str | Path) -> ExportedModel:
    """Read what ``export_model`` wrote; it runs on the CPU.

    An ONNX file is data. torch's two formats are programs: load only those that you made.

    Raises:
        UsageError: the file is missing, damaged or none of segroi's, or its runtime is missing.
    """
    path = existing_file(path, "exported model")
    readers = {".onnx": _onnx, ".pt2": _torch_export, ".ts": _torchscript}
    if path.suffix not in readers:
        raise UsageError(f"{path} is no exported model: those end in {', '.join(FORMATS.values())}")
    try:
        run, info = readers[path.suffix](path)
    except UsageError:
        raise
    except Exception as error:  # every runtime has errors of its own for files not its own
        first = str(error).partition("\n")[0]
        raise UsageError(f"exported model {path} cannot be read: {first}") from error
    if not info:
        raise UsageError(f"{path} was not written by segroi export")
    return ExportedModel(run, json.loads(info))


def _onnx(path: Path) -> tuple[_Run, str]:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        text = "ONNX files need the package onnxruntime: pip install onnxruntime"
        raise UsageError(text) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(value) for value in session.run(None, {"image": image.numpy()})]

    return run, session.get_modelmeta().custom_metadata_map.get(ONNX_INFO, "")


def _torch_export(path: Path) -> tuple[_Run, str]:
    files = {INFO: ""}
    module = torch.export.load(path, extra_files=files).module()
    return module, files[INFO]


def _torchscript(path: Path) -> tuple[_Run, str]:
    files = {INFO: ""}
    module = torch.jit.load(path, map_location="cpu", _extra_files=files)
    text = files[INFO]
    return module, text.decode() if isinstance(text, bytes) else text
