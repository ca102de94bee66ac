"""Write a model in the format of a runtime, with what it needs to be understood."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segroi import build_info
from segroi.tv.export.exportable import exportable
from segroi.utils.safe_files import atomic_write
from segroi.utils.suggest import UsageError, unknown

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".ts"}
OPSETS = range(18, 24)  # what torch's exporter writes
OPSET = 18
INFO = "segroi.json"  # name of the description in torch's two formats
ONNX_INFO = "segroi"  # and in the metadata of an ONNX file

_ANY_SIZE = (417, 626)  # of the example image where the graph takes any size
_ONNX_LIMIT = 2**31 - 1  # bytes of a protobuf


def export_model(
    model: nn.Module,
    path: str | Path,
    to: str,
    info: Mapping[str, Any],
    image_size: tuple[int, int] | None = None,
    opset: int = OPSET,
    force: bool = False,
) -> Path:
    """Write a trained model for another runtime.

    The file takes one image, float32 ``[3, H, W]`` in 0..1 (RGB), and gives what the model gives:
    any number of boxes. It does all the work, resizing included. torch.export's file refuses an
    image so narrow that the coarsest map has a single row or column.

    Args:
        model: one of ``segroi.tv.models``.
        path: file to write; its suffix is that of the format.
        to: name in ``FORMATS``.
        info: plain data that is stored in the file; ``categories`` are those of the model's labels.
        image_size: the only (height, width) that the file will take; None: any. TorchScript needs
            one.
        opset: version of ONNX's operators, 18 to 23.
        force: replace a file.

    Raises:
        UsageError: the model cannot be exported so, a package is missing, or the file exists.
    """
    path = check_request(path, to, image_size, opset, force)
    module = exportable(model.cpu().eval())
    if to == "torch-export" and image_size is None and getattr(module, "resizes", False):
        raise UsageError(
            "torch-export of a model that resizes images takes one size: give it as --image-size H "
            "W (ONNX takes any)"
        )
    image = torch.zeros(3, *(image_size or _ANY_SIZE))
    # A blank image would leave nothing to trace through the heads.
    image = image.uniform_(generator=torch.Generator().manual_seed(0))
    content = {**info, "outputs": list(module.outputs), "image_size": image_size}
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        if to == "torchscript":
            written = _torchscript(module, image, json.dumps(content))
        else:
            program = _program(module, image, fixed=image_size is not None)
            if to == "onnx":
                written = _onnx(program, opset, content)
            else:
                written = _torch_export(program, json.dumps(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(written)
    return path


def check_request(
    path: str | Path, to: str, image_size: tuple[int, int] | None, opset: int, force: bool
) -> Path:
    """The path to write, or a UsageError about what cannot be done."""
    if to not in FORMATS:
        raise UsageError(unknown("format", to, FORMATS))
    path = Path(path)
    if path.suffix != FORMATS[to]:
        raise UsageError(f"a file of format {to} ends in {FORMATS[to]}, got {path}")
    if path.exists() and not force:
        raise UsageError(f"{path} exists: --force replaces it")
    if image_size is not None and min(image_size) < 1:
        raise UsageError(f"the image size must be positive, got {image_size}")
    if to == "torchscript" and image_size is None:
        raise UsageError("torchscript takes images of one size: give it as --image-size H W")
    if opset not in OPSETS:
        raise UsageError(
            f"opset {opset} cannot be written: {OPSETS[0]} to {OPSETS[-1]} can (before 16 RoiAlign "
            "has no half-pixel shift)"
        )
    if not build_info()["built"]:
        raise UsageError("export needs the compiled operators: segroi doctor tells what is missing")
    if to == "onnx":
        _package("onnx")
        _package("onnxscript")
    return path


def _program(module: nn.Module, image: Tensor, fixed: bool) -> torch.export.ExportedProgram:
    any_size = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    shapes = None if fixed else {"image": any_size}
    return torch.export.export(module, (image,), dynamic_shapes=shapes)


def _torch_export(program: torch.export.ExportedProgram, info: str) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={INFO: info})
    return buffer.getvalue()


def _torchscript(module: nn.Module, image: Tensor, info: str) -> bytes:
    traced = torch.jit.trace(module, (image,), check_trace=False)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files={INFO: info})
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram, opset: int, info: Mapping[str, Any]) -> bytes:
    from segroi.ops.onnx import translation_table

    names = info["outputs"]
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=["image"],
            output_names=names,
            verbose=False,
            custom_translation_table=translation_table(),
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UsageError(f"this model cannot be exported to ONNX: {cause}") from error
    model = exported.model_proto
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found.get("") != opset:
        raise UsageError(
            f"this model cannot be written in opset {opset}: it came out in opset {found.get('')}"
        )
    helper = _package("onnx.helper")
    classes = json.dumps([category["name"] for category in info["categories"]])
    helper.set_model_props(model, {ONNX_INFO: json.dumps(dict(info)), "classes": classes})
    if model.ByteSize() > _ONNX_LIMIT:
        raise UsageError("this model is larger than the 2 GB that an ONNX file can hold")
    return model.SerializeToString()


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        text = f"ONNX export needs the package {name}: pip install onnx onnxscript onnxruntime"
        raise UsageError(text) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of the exporters: tracing warns of every size that it fixes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
