"""How a case is judged: against the reference operator, and beside torchvision's roi_align."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor

from segroi import ops
from segroi.modeling.roi_extractors import build_roi_extractor
from segroi.ops.reference import encompass_crop as encompass_reference
from segroi.ops.reference.crop_and_resize import crop_and_resize as crop_reference
from segroi.ops.reference.multi_level_roi_align import multi_level_roi_align as align_reference
from segroi.verify.cases import Arguments, Case
from segroi.verify.outcome import Outcome, summary

_TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 4e-2}
_SCALES = [1 / 4, 1 / 8, 1 / 16]


@dataclass(frozen=True)
class Subject:
    """An operator under test, what defines its values, and how its errors begin."""

    run: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    errors: str | tuple[str, ...]


def _encompass(crop: Callable[..., list[Tensor]]) -> Callable[..., Tensor]:
    """The stacks of a crop, one after the other."""

    def run(**arguments: Any) -> Tensor:
        return torch.cat([each.flatten() for each in crop(**arguments)])

    return run


def _reference_cells(
    boxes: Tensor, image_size: Any, grid_size: int, on_invalid: str = "raise"
) -> Tensor:
    grid = (grid_size, grid_size)
    return encompass_reference.encompassing_boxes(boxes, image_size, grid, on_invalid == "zero")


def _reference_stacks(
    features: Tensor, cells: Tensor, batch_index: Tensor, shapes: Any, on_invalid: str = "raise"
) -> list[Tensor]:
    zero, rows = on_invalid == "zero", [len(cells)]
    source = encompass_reference.stack_rows(torch.zeros_like(batch_index), rows, zero)
    grid = tuple(features.shape[2:])
    return encompass_reference.encompass_crop(
        [features], cells, batch_index, source, shapes, rows, grid, zero
    )


def _extractor(name: str) -> Callable[..., Tensor]:
    """A freshly built extractor with the same weights every time."""

    def run(features: list[Tensor], rois: Tensor) -> Tensor:
        torch.manual_seed(0)
        channels = {} if name == "SingleLevelRoIExtractor" else {"in_channels": 3}
        channels |= {"out_channels": 4} if name == "MultiScaleSubnetwork" else {}
        extractor = build_roi_extractor(
            name, output_size=4, spatial_scales=_SCALES, **channels, **_OPTIONS.get(name, {})
        )
        return extractor.to(rois.device)(features, rois)

    return run


def _crop_backward(
    grad: Tensor, features: Tensor, boxes: Tensor, box_index: Tensor, on_invalid: str = "raise"
) -> Tensor:
    """The backward kernel itself, without a forward that would have refused its input."""
    options = ([4, 6], "bilinear", 0.0, "aligned", 1, on_invalid)
    with torch.no_grad():
        grads = torch.ops.segroi.crop_and_resize_backward(
            grad, features, boxes, box_index, *options, [True, True]
        )
    return torch.cat([each.flatten() for each in grads])


def _align_backward(
    grad: Tensor, features: list[Tensor], rois: Tensor, on_invalid: str = "raise"
) -> Tensor:
    options = ([3, 2], _SCALES, 0, True, "select", 2, 224.0, 4, on_invalid)
    with torch.no_grad():
        maps, boxes = torch.ops.segroi.multi_level_roi_align_backward(
            grad, features, rois, None, *options, True, True
        )
    return torch.cat([each.flatten() for each in (*maps, boxes)])


def _crop_gradient(
    grad: Tensor, features: Tensor, boxes: Tensor, box_index: Tensor, on_invalid: str = "raise"
) -> Tensor:
    """What the backward kernel must give: the gradient of the reference."""
    leaves = [features.detach().requires_grad_(), boxes.detach().requires_grad_()]
    options = ([4, 6], "bilinear", 0.0, "aligned", 1, on_invalid)
    with torch.enable_grad():
        grads = torch.autograd.grad(crop_reference(*leaves, box_index, *options), leaves, grad)
    return torch.cat([each.flatten() for each in grads])


def _align_gradient(
    grad: Tensor, features: list[Tensor], rois: Tensor, on_invalid: str = "raise"
) -> Tensor:
    leaves = [each.detach().requires_grad_() for each in (*features, rois)]
    with torch.enable_grad():
        pooled = align_reference(leaves[:-1], leaves[-1], [3, 2], _SCALES, on_invalid=on_invalid)
        grads = torch.autograd.grad(pooled, leaves, grad)
    return torch.cat([each.flatten() for each in grads])


_OPTIONS = {"GRoIE": {"pre": "conv3x3", "post": "none"}}
_ALIGN = "multi_level_roi_align"
_CROP = Subject(ops.crop_and_resize, crop_reference, "crop_and_resize")
SUBJECTS = {
    _ALIGN: Subject(ops.multi_level_roi_align, align_reference, _ALIGN),
    "crop_and_resize tf": _CROP,
    "crop_and_resize aligned": _CROP,
    f"{_ALIGN} backward": Subject(_align_backward, _align_gradient, _ALIGN),
    "crop_and_resize backward": Subject(_crop_backward, _crop_gradient, "crop_and_resize"),
    "encompassing_boxes": Subject(ops.encompassing_boxes, _reference_cells, "encompassing_boxes"),
    "encompass_crop": Subject(
        _encompass(ops.encompass_crop),
        _encompass(_reference_stacks),
        ("encompass_crop", "stack_rows"),
    ),
    **{
        name: Subject(_extractor(name), _extractor(name), _ALIGN)
        for name in ("SingleLevelRoIExtractor", "GRoIE", "MultiScaleSubnetwork")
    },
}


def good_arguments(op: str, device: str) -> Arguments:
    """Arguments that every operator accepts: three levels, or one map of 16 x 20 cells."""
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 32 >> i, 40 >> i, generator=g).to(device) for i in range(3)]
    corner = torch.rand(6, 2, generator=g) * 60
    boxes = torch.cat([corner, corner + 4 + torch.rand(6, 2, generator=g) * 60], 1).to(device)
    index = torch.arange(6, device=device) % 2
    arguments = {"features": maps[1], "box_index": index, "crop_size": (4, 6)}
    if op == "crop_and_resize tf":
        return {**arguments, "boxes": boxes[:, [1, 0, 3, 2]] / 128}
    if op == "crop_and_resize aligned":
        return {**arguments, "boxes": boxes / 8, "coordinates": "aligned"}
    if op == "encompassing_boxes":
        return {"boxes": boxes, "image_size": (128, 160), "grid_size": 16}
    if op == "encompass_crop":
        cells = torch.tensor([[1, 2, 4, 7], [0, 0, 1, 1], [16, 11, 20, 16]] * 2, device=device)
        return {"features": maps[1], "cells": cells, "batch_index": index, "shapes": [(6, 8)]}
    if op == "crop_and_resize backward":
        del arguments["crop_size"]
        grad = torch.randn(6, 3, 4, 6, generator=g).to(device)
        return {**arguments, "boxes": boxes / 8, "grad": grad}
    rois = {"features": maps, "rois": torch.cat([index[:, None].float(), boxes], 1)}
    if op == f"{_ALIGN} backward":
        return {**rois, "grad": torch.randn(6, 3, 3, 2, generator=g).to(device)}
    return {**rois, "output_size": (3, 2), "spatial_scales": _SCALES} if op == _ALIGN else rois


def judge(case: Case, device: str) -> Outcome:
    """Run our operator on a case: an error must name its argument, a value must be the reference's.

    The outcome ``wrong`` means that one of the two was not so.
    """
    subject = SUBJECTS[case.op]
    arguments = good_arguments(case.op, device)
    case.spoil(arguments)
    try:
        ours = _forward_backward(subject.run, arguments)
        ops.check_errors()  # CUDA: what the kernels found
    except Exception as error:
        return _judge_error(case, subject.errors, error)
    if case.argument is not None:
        return Outcome("wrong", f"accepted, expected an error about {case.argument}")
    want = _forward_backward(subject.reference, arguments)
    tolerance = _TOLERANCE.get(ours[0].dtype, 1e-4)
    for i, (a, b) in enumerate(zip(ours, want, strict=True)):
        if not _close(a, b, tolerance):
            label = "gradient" if i else "output"
            return Outcome("wrong", f"{label} {summary(a)}, the reference {summary(b)}")
    return Outcome("value", summary(ours[0]))


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    size = float(b.double().nan_to_num(0, 0, 0).abs().max()) if b.numel() else 1.0
    atol = tolerance * min(size, 1e30) + 1e-6
    return torch.allclose(a, b, rtol=tolerance, atol=atol, equal_nan=True)


def _judge_error(case: Case, name: str | tuple[str, ...], error: Exception) -> Outcome:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if case.argument is None:
        return Outcome("wrong", f"raised {text}, expected a value")
    clear = isinstance(error, (TypeError, ValueError)) and str(error).startswith(name)
    named = case.argument in str(error)
    return Outcome("raised" if clear and named else "wrong", text)


def _forward_backward(op: Callable[..., Tensor], arguments: Arguments) -> list[Tensor]:
    """Result and the gradients of every floating-point tensor."""
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, list):
            return [leaf(each) for each in value]
        if (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and value.is_floating_point()
        ):
            value = value.detach().requires_grad_()
            leaves.append(value)
        return value

    result = op(**{name: leaf(value) for name, value in arguments.items()})
    if not result.requires_grad:
        return [result]
    seed = torch.arange(result.numel(), device=result.device).view(result.shape) % 7 - 3
    grads = torch.autograd.grad(result, leaves, seed.to(result.dtype), materialize_grads=True)
    return [result.detach(), *grads]


def peer_roi_align(case: Case, device: str) -> Outcome | None:
    """What torchvision's roi_align does with the same, where it has the same; forward, backward."""
    arguments = good_arguments(case.op, device)
    case.spoil(arguments)
    if case.op == "multi_level_roi_align":
        maps, rois, scale = (
            arguments["features"][0],
            arguments["rois"],
            arguments["spatial_scales"][0],
        )
        size = arguments["output_size"]
    elif case.op == "crop_and_resize aligned":
        index = arguments["box_index"].to(arguments["boxes"].dtype)
        maps, rois, scale = (
            arguments["features"],
            torch.cat([index[:, None], arguments["boxes"]], 1),
            1.0,
        )
        size = arguments["crop_size"]
    else:
        return None
    ratio = arguments.get("sampling_ratio", 0)

    def op(maps: Tensor, rois: Tensor) -> Tensor:
        return torchvision.ops.roi_align(maps, rois, size, scale, ratio, True)

    return Outcome("value", summary(_forward_backward(op, {"maps": maps, "rois": rois})[0]))
