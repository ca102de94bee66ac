"""ONNX export: the RoI operators in terms of standard ONNX operators."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch

from segroi._extension import is_built
from segroi.ops._checks import wrong

# ONNX RoiAlign takes no sample of a bin without extent where it samples adaptively, segroi one: a
# box gets at least this length, in cells. It is two steps of float32 on a map of 1024 cells.
_POINT = 2.0**-13


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Tell ``torch.onnx.export`` how to write ``multi_level_roi_align`` and ``crop_and_resize``.

    Graphs hold operators of the standard domain only (opset 18; 16 introduced what they need) and
    take any number of boxes, 0 included, where that dimension is exported as dynamic:

    * ``multi_level_roi_align``: every option. One ``RoiAlign`` per map; for ``"select"`` each
      pools only its own boxes.
    * ``crop_and_resize``, ``method="bilinear"``: ``"aligned"`` with ``extrapolation_value=0`` is a
      ``RoiAlign``; ``"tf"`` is a ``GridSample``, which copies a whole map per box.

    A graph cannot raise, so that invalid boxes give 0 whatever ``on_invalid`` says. Half maps are
    pooled in float32. With half-pixel shift and adaptive sampling a side of a box that is shorter
    than 2^-13 cells is exported as that long. Clip boxes to the image before adaptive sampling: a
    runtime may visit every sample of a huge one.

    Returns:
        The ``custom_translation_table`` of ``torch.onnx.export(..., dynamo=True)``.

    Raises:
        ImportError: onnxscript is not installed.
        RuntimeError: the extension is not built, so that there are no operators to translate.
        ValueError: (as the cause of the exporter's error) ``crop_and_resize`` with an option that
            standard operators do not have.

    Example:
        >>> import segroi.ops.onnx
        >>> pool = segroi.ops.MultiLevelRoIAlign(7, (1 / 4, 1 / 8))
        >>> maps = [torch.ones(1, 8, 50, 76), torch.ones(1, 8, 25, 38)]
        >>> rois = torch.tensor([[0.0, 4.0, 4.0, 90.0, 60.0], [0.0, 9.0, 9.0, 40.0, 30.0]])
        >>> program = torch.onnx.export(
        ...     pool,
        ...     (maps, rois),
        ...     dynamo=True,
        ...     dynamic_shapes=([None, None], {0: torch.export.Dim.DYNAMIC}),
        ...     custom_translation_table=segroi.ops.onnx.translation_table(),
        ... )
    """
    _onnxscript()
    if not is_built():
        raise RuntimeError("segroi.ops.onnx: the extension must be built to export its operators")
    return {
        torch.ops.segroi.multi_level_roi_align.default: _multi_level_roi_align,
        torch.ops.segroi.crop_and_resize.default: _crop_and_resize,
    }


def _onnxscript() -> Any:
    try:
        return importlib.import_module("onnxscript")
    except ImportError as error:
        text = "segroi.ops.onnx: onnxscript must be installed: pip install onnx onnxscript"
        raise ImportError(text) from error


def _multi_level_roi_align(
    features: Any,
    rois: Any,
    levels: Any,
    output_size: Any,
    spatial_scales: Any,
    sampling_ratio: Any,
    aligned: Any,
    reduce: Any,
    finest_level: Any,
    canonical_size: Any,
    canonical_level: Any,
    on_invalid: Any,
) -> Any:
    op = _onnxscript().opset18
    boxes, column = _columns(op, rois, 1, 5), op.Gather(rois, 0, axis=1)
    extent = op.Sub(_columns(op, boxes, 2, 4), _columns(op, boxes, 0, 2))
    image = op.Cast(column, to=_kind("INT64"))
    pooled = op.And(
        op.And(_valid(op, boxes, image, features[0]), op.Equal(column, op.Floor(column))),
        _all(op, op.GreaterOrEqual(extent, op.CastLike(0.0, boxes))),
    )
    masks = [pooled] * len(features)
    if reduce == "select":
        if levels is None:
            first_area = (canonical_size * 2.0 ** (finest_level + 1 - canonical_level)) ** 2
            levels = _box_levels(op, extent, first_area, len(features))
        levels = op.Cast(levels, to=_kind("INT64"))
        masks = [op.And(pooled, op.Equal(levels, index)) for index in range(len(features))]
    result, parts = None, []
    for feature, scale, mask in zip(features, spatial_scales, masks):
        into = result if reduce == "select" else None
        longer = _with_extent(op, boxes, scale) if aligned and sampling_ratio == 0 else boxes
        result = _roi_align(
            op, feature, longer, image, mask, output_size, scale, sampling_ratio, aligned, into
        )
        parts.append(op.Unsqueeze(result, [1]) if reduce == "stack" else result)
    if reduce == "sum":
        result = op.Sum(*parts)
    elif reduce != "select":
        result = op.Concat(*parts, axis=1)
    return op.CastLike(result, features[0])


def _crop_and_resize(
    features: Any,
    boxes: Any,
    box_index: Any,
    crop_size: Any,
    method: Any,
    extrapolation_value: Any,
    coordinates: Any,
    pool: Any,
    on_invalid: Any,
) -> Any:
    op = _onnxscript().opset18
    if method != "bilinear":
        raise wrong(ValueError, "crop_and_resize", "method", "'bilinear' for ONNX", method)
    if coordinates == "aligned" and extrapolation_value != 0:
        expected = "0 for ONNX in 'aligned' coordinates, as in RoiAlign"
        name = "extrapolation_value"
        raise wrong(ValueError, "crop_and_resize", name, expected, extrapolation_value)
    image = op.Cast(box_index, to=_kind("INT64"))
    mask = _valid(op, boxes, image, features)
    if coordinates == "aligned":
        size = [side // pool for side in crop_size]
        crops = _roi_align(op, features, boxes, image, mask, size, 1.0, pool, True, None)
    else:
        rows = _rows(op, mask)
        crops = _tf_crops(
            op,
            op.CastLike(op.Gather(features, op.Gather(image, rows), axis=0), boxes),
            op.Gather(boxes, rows, axis=0),
            crop_size,
            extrapolation_value,
        )
        if pool > 1:
            crops = op.AveragePool(crops, kernel_shape=[pool, pool], strides=[pool, pool])
        crops = op.ScatterND(_zeros_like(op, image, crops), op.Unsqueeze(rows, [1]), crops)
    return op.CastLike(crops, features)


def _tf_crops(op: Any, maps: Any, boxes: Any, crop_size: Any, fill: float) -> Any:
    """TensorFlow's crops ``[K, C, h, w]`` of maps ``[K, C, H, W]``, one for each box."""
    axes = []
    for axis, count in enumerate(crop_size):
        length = op.CastLike(op.Shape(maps, start=2 + axis, end=3 + axis), boxes)
        span = op.Sub(length, op.CastLike(1.0, boxes))
        start, end = _columns(op, boxes, axis, axis + 1), _columns(op, boxes, axis + 2, axis + 3)
        at = _tf_positions(op, start, end, span, count)
        inside = op.And(op.GreaterOrEqual(at, op.CastLike(0.0, at)), op.LessOrEqual(at, span))
        # GridSample wants -1 and 1 at the centres of the outer cells; one cell has no extent.
        unit = op.Div(at, op.Max(span, op.CastLike(1.0, at)))
        unit = op.Clip(unit, op.CastLike(0.0, at), op.CastLike(1.0, at))
        grid = op.Sub(op.Add(unit, unit), op.CastLike(1.0, at))
        axes.append([op.Unsqueeze(value, [2 - axis]) for value in (grid, inside)])
    (y, inside_y), (x, inside_x) = axes
    shape = [1, *crop_size]
    grid = [op.Unsqueeze(op.Expand(v, op.Constant(value_ints=shape)), [3]) for v in (x, y)]
    crops = op.GridSample(
        maps,
        op.Concat(*grid, axis=3),
        align_corners=1,
        mode="bilinear",
        padding_mode="border",
    )
    inside = op.Unsqueeze(op.And(inside_y, inside_x), [1])
    return op.Where(inside, crops, op.CastLike(fill, crops))


def _tf_positions(op: Any, start: Any, end: Any, span: Any, count: int) -> Any:
    """``Tensor[K, count]`` in cells, of boxes ``Tensor[K, 1]`` normalised by ``span``."""
    if count == 1:
        return op.Mul(op.Mul(op.Add(start, end), op.CastLike(0.5, span)), span)
    steps = op.CastLike(op.Constant(value_floats=[float(i) for i in range(count)]), span)
    step = op.Div(op.Mul(op.Sub(end, start), span), op.CastLike(float(count - 1), span))
    return op.Add(op.Mul(start, span), op.Mul(steps, step))


def _roi_align(
    op: Any,
    feature: Any,
    boxes: Any,
    image: Any,
    mask: Any,
    size: Any,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
    into: Any,
) -> Any:
    """RoIAlign of the boxes in ``mask``, written over their rows of ``into`` (None: of zeros)."""
    rows = _rows(op, mask)
    pooled = op.RoiAlign(
        op.CastLike(feature, boxes),
        op.Gather(boxes, rows, axis=0),
        op.Gather(image, rows, axis=0),
        mode="avg",
        output_height=size[0],
        output_width=size[1],
        sampling_ratio=sampling_ratio,
        spatial_scale=scale,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
    into = _zeros_like(op, image, pooled) if into is None else into
    return op.ScatterND(into, op.Unsqueeze(rows, [1]), pooled)


def _box_levels(op: Any, extent: Any, first_area: float, levels: int) -> Any:
    """``int64 Tensor[K]``: how many levels' smallest areas a box reaches, compared in float64."""
    area = op.Mul(_columns(op, extent, 0, 1), _columns(op, extent, 1, 2))
    areas = [first_area * 4.0**index for index in range(levels - 1)] or [math.inf]
    ir = _onnxscript().ir
    smallest = op.Constant(value=ir.tensor(areas, dtype=ir.DataType.DOUBLE))
    reached = op.GreaterOrEqual(op.Cast(area, to=_kind("DOUBLE")), smallest)
    return op.ReduceSum(op.Cast(reached, to=_kind("INT64")), [1], keepdims=0)


def _with_extent(op: Any, boxes: Any, scale: float) -> Any:
    low, high = _columns(op, boxes, 0, 2), _columns(op, boxes, 2, 4)
    high = op.Max(high, op.Add(low, op.CastLike(_POINT / scale, boxes)))
    return op.Concat(low, high, axis=1)


def _valid(op: Any, boxes: Any, image: Any, features: Any) -> Any:
    """Bool ``Tensor[K]``: the box is finite and there is such an image."""
    finite = op.Not(op.Or(op.IsNaN(boxes), op.IsInf(boxes)))
    count = op.Shape(features, start=0, end=1)
    exists = op.And(op.GreaterOrEqual(image, 0), op.Less(image, count))
    return op.And(_all(op, finite), exists)


def _all(op: Any, mask: Any) -> Any:
    """Along the columns; ReduceMin has no bool in opset 18."""
    least = op.ReduceMin(op.Cast(mask, to=_kind("INT32")), [1], keepdims=0)
    return op.Cast(least, to=_kind("BOOL"))


def _rows(op: Any, mask: Any) -> Any:
    return op.Squeeze(op.NonZero(mask), [0])


def _columns(op: Any, matrix: Any, first: int, stop: int) -> Any:
    return op.Slice(matrix, [first], [stop], [1])


def _zeros_like(op: Any, image: Any, rows: Any) -> Any:
    """Zeros with the shape of ``rows``, but as many of them as there are boxes."""
    shape = op.Concat(op.Shape(image), op.Shape(rows, start=1), axis=0)
    return op.Expand(op.CastLike(0.0, rows), shape)


def _kind(name: str) -> int:
    return int(_onnxscript().ir.DataType[name])
