"""Every case of ``badinputs``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from segroi._extension import is_built
from segroi.verify.cases import (
    INF,
    NAN,
    Case,
    become,
    both,
    box_cases,
    index_cases,
    map_cases,
    put,
    shape_cases,
    size_cases,
    value_cases,
    zeroed,
)


def all_cases() -> list[Case]:
    """Every case, in the order in which it is printed."""
    backward = (
        *_backward_cases("multi_level_roi_align backward", "rois", 1, 128.0, "rois", (1, 0)),
        *_backward_cases("crop_and_resize backward", "boxes", 0, 16.0, "box_index", 1),
    )
    extractors = ("SingleLevelRoIExtractor", "GRoIE", "MultiScaleSubnetwork")
    return [
        *_roi_align_cases(),
        *_crop_cases("tf"),
        *_crop_cases("aligned"),
        *(backward if is_built() else ()),
        *_encompassing_cases(),
        *_encompass_crop_cases(),
        *(case for op in extractors for case in _extractor_cases(op)),
    ]


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
        "levels of different channels": level(1, lambda m: m[:, :2]),
        "levels of different batches": level(1, lambda m: m[:1]),
        "levels of different dtypes": level(1, lambda m: m.double()),
        "levels on different devices": level(1, lambda m: m.to("meta")),
        "a level that is None": level(1, lambda m: None),
        "None": lambda maps: None,
    }
    for label, change in wrong.items():
        yield Case(op, f"features: {label}", become("features", change), "features")
    fewer = become("features", lambda maps: maps[:2])
    yield Case(op, "features: two levels for three scales", fewer, "spatial_scales")
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


def _backward_cases(
    op: str, boxes: str, offset: int, unit: float, index: str, place: Any
) -> Iterator[Case]:
    """The backward kernels by themselves: nothing that they trust has been checked before."""
    yield from value_cases(op, boxes, offset)
    yield from box_cases(op, boxes, offset, unit)
    yield from index_cases(op, index, place)
    wrong = {
        "of too few boxes": lambda t: t[:-1],
        "of too few channels": lambda t: t[:, :-1],
        "of too few rows": lambda t: t[:, :, :-1],
        "3-D": lambda t: t[0],
        "empty": lambda t: t[:0],
        "of another dtype": lambda t: t.double(),
    }
    for label, change in wrong.items():
        yield Case(op, f"grad {label}", become("grad", change), "grad")
    yield Case(op, "grad a stride-0 view", become("grad", lambda t: t[:1, :1, :1].expand_as(t)))
    nhwc = become("grad", lambda t: t.contiguous(memory_format=torch.channels_last))
    yield Case(op, "grad channels_last", nhwc)


def _encompassing_cases() -> Iterator[Case]:
    op = "encompassing_boxes"
    yield from value_cases(op, "boxes", 0)
    yield from box_cases(op, "boxes", 0, 128.0)
    wrong = {"1-D": lambda t: t[0], "5 columns": lambda t: t[:, [0, 1, 2, 3, 3]], "None": None}
    wrong |= {"half": lambda t: t.half(), "int64": lambda t: t.long(), "a list": [[0, 0, 1, 1]]}
    for label, change in wrong.items():
        yield Case(op, f"boxes {label}", become("boxes", change), "boxes")
    for value in (0, -1, (4, 0), (4, 4, 4), 2.5, None):
        yield Case(op, f"grid_size {value!r}", become("grid_size", value), "grid_size")
    for value in ((0, 128), (-1, 128), (128,), None):
        yield Case(op, f"image_size {value!r}", become("image_size", value), "image_size")
    yield Case(op, "on_invalid ignore", become("on_invalid", "ignore"), "on_invalid")
    yield Case(op, "no boxes", become("boxes", lambda t: t[:0]))
    on_lines = torch.tensor([8.0, 16.0, 24.0, 40.0])
    yield Case(op, "box on grid lines", put("boxes", 0, on_lines))
    yield Case(op, "box at 2^24", put("boxes", 0, on_lines + 2**24))


def _encompass_crop_cases() -> Iterator[Case]:
    op = "encompass_crop"
    wrong_cells = {
        "of no width": (3, 3, 3, 5),
        "inverted": (5, 5, 3, 3),
        "left of the grid": (-1, 0, 2, 2),
        "right of the grid": (17, 0, 21, 2),
        "below the grid": (0, 14, 2, 17),
        "larger than the shape": (0, 0, 9, 3),
        "at 2^62": (0, 0, 2**62, 2**62),
    }
    for label, row in wrong_cells.items():
        spoil = put("cells", 1, torch.tensor(row))
        yield Case(op, f"cells {label}, raise", spoil, "cells")
        yield Case(op, f"cells {label}, zero", both(spoil, zeroed))
    yield from index_cases(op, "batch_index", 1)
    for name in ("cells", "batch_index"):
        yield Case(op, f"{name} float", become(name, lambda t: t.float()), name)
        yield Case(op, f"{name} 3-D", become(name, lambda t: t[None, None]), name)
        yield Case(op, f"{name} of another length", become(name, lambda t: t[:5]), name)
        yield Case(op, f"{name} on meta", become(name, lambda t: t.to("meta")), name)
    for value in ([(0, 4)], [(-1, 4)], [(4,)], [], None):
        yield Case(op, f"shapes {value!r}", become("shapes", value), "shapes")
    yield Case(op, "more boxes than rows", become("rows", [2]), "branch")
    yield Case(op, "rows [-1]", become("rows", [-1]), "rows")
    for label, change in {
        "3-D": lambda t: t[0],
        "not a multiple of the grid": lambda t: [t, t[:, :, :-1].repeat(1, 1, 2, 2)],
        "None": None,
    }.items():
        yield Case(op, f"features {label}", become("features", change), "features")
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int32):
        yield Case(op, f"features {dtype}", become("features", lambda t, d=dtype: t.to(d)))
    yield Case(
        op, "no boxes", both(*(become(n, lambda t: t[:0]) for n in ("cells", "batch_index")))
    )
    yield Case(op, "boxes that share pixels", become("cells", lambda t: t[:1].repeat(6, 1)))


def _extractor_cases(op: str) -> Iterator[Case]:
    for value in (NAN, INF):
        yield Case(op, f"{value} in a box", put("rois", (1, 3), value), "rois")
    for value in (2, -1, 0.5, 1e6):
        yield Case(op, f"image {value} of 2", put("rois", (1, 0), value), "rois")
    yield Case(op, "half boxes", become("rois", lambda t: t.half()), "rois")
    yield Case(op, "boxes without index", become("rois", lambda t: t[:, 1:]), "rois")
    narrow = become("features", lambda maps: [maps[0], maps[1][:, :2], maps[2]])
    yield Case(op, "maps of different channels", narrow, "features")
    yield Case(op, "no boxes", become("rois", lambda t: t[:0]))
    yield Case(op, "boxes far outside", put("rois", (slice(None), slice(1, 5)), 1e6))
    yield Case(op, "inverted box", put("rois", (1, slice(1, 5)), torch.tensor([90.0, 80, 20, 10])))
