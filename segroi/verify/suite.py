"""Every case of ``badinputs`` and how it is judged against the reference and beside a peer."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor

from segroi import ops
from segroi.verify.cases import (
    INF,
    NAN,
    Arguments,
    Case,
    become,
    both,
    box_cases,
    good_arguments,
    index_cases,
    map_cases,
    put,
    shape_cases,
    size_cases,
    value_cases,
    zeroed,
)
from segroi.verify.outcome import Outcome, summary

_TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 4e-2}


def all_cases() -> list[Case]:
    """Every case, in the order in which it is printed."""
    return [*_roi_align_cases(), *_crop_cases("tf"), *_crop_cases("aligned")]


def _crop_cases(coordinates: str) -> Iterator[Case]:
    op = f"crop_and_resize {coordinates}"
    unit = 1.0 if coordinates == "tf" else 16.0
    yield from value_cases(op, "boxes", 0)
    yield from box_cases(op, "boxes", 0, unit)
    yield from index_cases(op, "box_index", 1)
    if coordinates == "tf":
        return
    yield from shape_cases(op, "boxes", 4)
    yield from size_cases(op, "crop_size")
    yield from map_cases(op, lambda change: change)
    yield from _crop_option_cases(op)


def _crop_option_cases(op: str) -> Iterator[Case]:
    wrong = {
        "box_index": (torch.zeros(5).long(), torch.zeros(6), torch.zeros(6, 1).long(), None),
        "method": ("bicubic", None),
        "coordinates": ("pixels", 3),
        "pool": (0, -1, 1.5, True),
        "crop_size": (5,),
        "extrapolation_value": ("0", None),
        "on_invalid": ("ignore", None),
        "out": (torch.empty(1), "out"),
    }
    for name, values in wrong.items():
        for value in values:
            shown = list(value.shape) if isinstance(value, Tensor) else repr(value)
            spoil = both(become("pool", 2), become(name, value))
            yield Case(op, f"{name} {shown}", spoil, name)
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32):
        yield Case(op, f"box_index {dtype}", become("box_index", lambda t, d=dtype: t.to(d)))
    for value in (NAN, INF, 1e38, -0.0):
        yield Case(op, f"extrapolation_value {value}", become("extrapolation_value", value))
    yield Case(op, "nearest", become("method", "nearest"))
    empty = both(become("boxes", lambda t: t[:0]), become("box_index", lambda t: t[:0]))
    yield Case(op, "no boxes", empty)
    yield Case(op, "no images, no boxes", both(become("features", lambda t: t[:0]), empty))
    yield Case(op, "no images, boxes, raise", become("features", lambda t: t[:0]), "box_index")
    yield Case(op, "no images, boxes, zero", both(become("features", lambda t: t[:0]), zeroed))
    yield Case(op, "NaN beside the box", put("features", (..., 19), NAN))
    yield Case(op, "infinity beside the box", put("features", (..., 15, slice(None)), INF))


def _roi_align_cases() -> Iterator[Case]:
    op = "multi_level_roi_align"
    yield from value_cases(op, "rois", 1)
    yield from box_cases(op, "rois", 1, 128.0)
    for case in box_cases(op, "rois", 1, 128.0):
        yield Case(op, f"{case.name}, sampling 2", both(case.spoil, become("sampling_ratio", 2)))
    yield from index_cases(op, "rois", (1, 0))
    for value in (NAN, INF, -INF, 0.9):
        yield Case(op, f"image {value} of 2, raise", put("rois", (1, 0), value), "rois")
        yield Case(op, f"image {value} of 2, zero", both(put("rois", (1, 0), value), zeroed))
    yield from shape_cases(op, "rois", 5)
    yield from size_cases(op, "output_size")
    yield from map_cases(op, _every_level)
    yield from _option_cases(op)
    yield from _pyramid_cases(op)


def _every_level(change: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda maps: [change(each) for each in maps]


def _option_cases(op: str) -> Iterator[Case]:
    for value in (NAN, INF, 0.0, -0.25):
        scales = [1 / 4, value, 1 / 16]
        yield Case(op, f"scale {value}", become("spatial_scales", scales), "spatial_scales")
    for value in (-1, 1.5, True, None, 2**31):
        yield Case(op, f"sampling_ratio {value}", become("sampling_ratio", value), "sampling_ratio")
    for name, values in {
        "reduce": ("mean", None),
        "on_invalid": ("ignore", None),
        "out": (torch.empty(1), "out"),
        "canonical_size": (0, -224, NAN),
    }.items():
        for value in values:
            shown = list(value.shape) if isinstance(value, Tensor) else repr(value)
            yield Case(op, f"{name} {shown}", become(name, value), name)
    for reduce in ("stack", "sum", "concat"):
        yield Case(op, f"reduce {reduce}", become("reduce", reduce))
        spoil = both(put("rois", (1, 2), NAN), zeroed, become("reduce", reduce))
        yield Case(op, f"reduce {reduce}, NaN, zero", spoil)
    yield Case(op, "not aligned", become("aligned", False))
    yield Case(op, "no boxes", become("rois", lambda t: t[:0]))


def _pyramid_cases(op: str) -> Iterator[Case]:
    def level(i: int, change: Callable[[Tensor], Any]) -> Callable[[list[Tensor]], list[Any]]:
        return lambda maps: [change(m) if k == i else m for k, m in enumerate(maps)]

    wrong = {
        "no levels": lambda maps: [],
        "two levels for three scales": lambda maps: maps[:2],
        "levels of different channels": level(1, lambda m: m[:, :2]),
        "levels of different batches": level(1, lambda m: m[:1]),
        "levels of different dtypes": level(1, lambda m: m.double()),
        "levels on different devices": level(1, lambda m: m.to("meta")),
        "a level that is None": level(1, lambda m: None),
        "None": lambda maps: None,
    }
    for label, change in wrong.items():
        yield Case(op, f"features: {label}", become("features", change), "features")
    nhwc = level(1, lambda m: m.contiguous(memory_format=torch.channels_last))
    yield Case(op, "levels of different layouts", become("features", nhwc))
    yield Case(op, "levels in the wrong order", become("features", lambda maps: maps[::-1]))
    yield Case(op, "a level of one cell", become("features", level(2, lambda m: m[..., :1, :1])))
    one = both(become("features", lambda m: m[:1]), become("spatial_scales", [1 / 4]))
    yield Case(op, "one level", one)
    skipped = both(become("features", lambda m: m[::2]), become("spatial_scales", [1 / 4, 1 / 16]))
    yield Case(op, "a level left out", skipped)
    yield Case(op, "stride 3", become("spatial_scales", [1 / 3, 1 / 6, 1 / 12]))
    for value in (-1, 3, 2**40):
        levels = torch.tensor([0, value, 2, 0, 1, 2])
        yield Case(op, f"level {value} of 3", become("levels", levels), "levels")
    for levels in (torch.zeros(5).long(), torch.zeros(6), [0] * 6):
        shown = type(levels).__name__ if isinstance(levels, list) else list(levels.shape)
        yield Case(op, f"levels {shown}", become("levels", levels), "levels")
    nothing = lambda maps: [m[:0] for m in maps]  # noqa: E731
    yield Case(op, "no images, boxes, raise", become("features", nothing), "rois")
    yield Case(op, "no images, boxes, zero", both(become("features", nothing), zeroed))


def judge(case: Case, device: str) -> Outcome:
    """Run our operator on a case: an error must name its argument, a value must be the reference's.

    The outcome ``wrong`` means that one of the two was not so.
    """
    name = case.op.split()[0]
    arguments = good_arguments(case.op, device)
    case.spoil(arguments)
    try:
        ours = _forward_backward(getattr(ops, name), arguments)
    except Exception as error:
        return _judge_error(case, name, error)
    if case.argument is not None:
        return Outcome("wrong", f"accepted, expected an error about {case.argument}")
    module = importlib.import_module(f"segroi.ops.reference.{name}")
    want = _forward_backward(getattr(module, name), arguments)
    tolerance = _TOLERANCE.get(ours[0].dtype, 1e-4)
    for label, a, b in zip(("output", "gradient", "gradient", "gradient", "gradient"), ours, want):
        scale = float(b.detach().double().nan_to_num(0, 0, 0).abs().max()) if b.numel() else 1.0
        if not torch.allclose(
            a, b, rtol=tolerance, atol=tolerance * min(scale, 1e30) + 1e-6, equal_nan=True
        ):
            return Outcome("wrong", f"{label} {summary(a)}, the reference {summary(b)}")
    return Outcome("value", summary(ours[0]))


def _judge_error(case: Case, name: str, error: Exception) -> Outcome:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if case.argument is None:
        return Outcome("wrong", f"raised {text}, expected a value")
    clear = isinstance(error, (TypeError, ValueError)) and str(error).startswith(f"{name}: ")
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
