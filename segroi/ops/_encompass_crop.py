"""Fake kernels and gradients of the encompassing-crop operators.

The crops are linear in the maps: the gradient of the backward operator is the forward one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_OPS = torch.ops.segroi


def _channels_last(maps: Sequence[Tensor]) -> bool:
    """Whether all maps are channels last, and one of them unambiguously so."""
    every = all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
    return every and any(not m.is_contiguous() for m in maps)


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _empty(like: Tensor, size: Sequence[int], channels_last: bool) -> Tensor:
    return torch.empty(
        tuple(size), dtype=like.dtype, device=like.device, memory_format=_format(channels_last)
    )


def _empty_crops(
    maps: Sequence[Tensor], shapes: Sequence[int], rows: Sequence[int], grid: Sequence[int]
) -> list[Tensor]:
    channels_last = _channels_last(maps)
    crops = []
    for s, n in enumerate(rows):
        for m in maps:
            factor = m.shape[2] // grid[0]
            size = (n, m.shape[1], shapes[2 * s] * factor, shapes[2 * s + 1] * factor)
            crops.append(_empty(m, size, channels_last))
    return crops


def _empty_maps(like: Tensor, sizes: Sequence[int], channels_last: bool) -> list[Tensor]:
    return [_empty(like, sizes[i : i + 4], channels_last) for i in range(0, len(sizes), 4)]


@torch.library.register_fake("segroi::encompassing_boxes")
def _(boxes: Tensor, image_size: Any, grid_size: Any, zero_invalid: bool) -> Tensor:
    return boxes.new_empty((boxes.shape[0], 4), dtype=torch.int64)


@torch.library.register_fake("segroi::stack_rows")
def _(branch: Tensor, rows: Sequence[int], zero_invalid: bool) -> Tensor:
    return branch.new_empty((sum(rows),))


@torch.library.register_fake("segroi::encompass_crop")
def _(
    features: list[Tensor],
    cells: Tensor,
    batch_index: Tensor,
    source: Tensor,
    shapes: Sequence[int],
    rows: Sequence[int],
    grid: Sequence[int],
    zero_invalid: bool,
) -> list[Tensor]:
    return _empty_crops(features, shapes, rows, grid)


@torch.library.register_fake("segroi::encompass_crop.out")
def _(*args: Any, out: list[Tensor]) -> None:
    return None


@torch.library.register_fake("segroi::encompass_crop_backward")
def _(
    grads: list[Tensor],
    cells: Tensor,
    batch_index: Tensor,
    source: Tensor,
    sizes: Sequence[int],
    shapes: Sequence[int],
    rows: Sequence[int],
    grid: Sequence[int],
    channels_last: bool,
) -> list[Tensor]:
    return _empty_maps(grads[0], sizes, channels_last)


@torch.library.register_fake("segroi::encompass_crop_packed")
def _(
    features: list[Tensor],
    cells: Tensor,
    batch_index: Tensor,
    offsets: Tensor,
    total: int,
    grid: Sequence[int],
    zero_invalid: bool,
) -> list[Tensor]:
    values = []
    for m in features:
        pixels = total * (m.shape[2] // grid[0]) ** 2
        if _channels_last(features):
            values.append(m.new_empty((pixels, m.shape[1])))
        else:
            values.append(m.new_empty((m.shape[1], pixels)).t())
    return values


@torch.library.register_fake("segroi::encompass_crop_packed_backward")
def _(
    grads: list[Tensor],
    cells: Tensor,
    batch_index: Tensor,
    offsets: Tensor,
    sizes: Sequence[int],
    grid: Sequence[int],
    channels_last: bool,
) -> list[Tensor]:
    return _empty_maps(grads[0], sizes, channels_last)


def _sizes(maps: Sequence[Tensor]) -> list[int]:
    return [side for m in maps for side in m.shape]


def _save_crops(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    maps, cells, batch_index, source, shapes, rows, grid, _ = inputs
    ctx.save_for_backward(cells, batch_index, source)
    ctx.plan = (_sizes(maps), shapes, rows, grid, _channels_last(maps))


def _crops_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    maps = _OPS.encompass_crop_backward(list(grads), *ctx.saved_tensors, *ctx.plan)
    return maps, None, None, None, None, None, None, None


def _save_crops_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    _, cells, batch_index, source, _, shapes, rows, grid, channels_last = inputs
    ctx.save_for_backward(cells, batch_index, source)
    ctx.plan = (shapes, rows, grid)
    ctx.format = _format(channels_last)


def _crops_double_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    maps = [g.contiguous(memory_format=ctx.format) for g in grads]
    crops = _OPS.encompass_crop(maps, *ctx.saved_tensors, *ctx.plan, True)
    return crops, None, None, None, None, None, None, None, None


def _save_packed(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    maps, cells, batch_index, offsets, _, grid, _ = inputs
    ctx.save_for_backward(cells, batch_index, offsets)
    ctx.plan = (_sizes(maps), grid, _channels_last(maps))


def _packed_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    maps = _OPS.encompass_crop_packed_backward(list(grads), *ctx.saved_tensors, *ctx.plan)
    return maps, None, None, None, None, None, None


def _save_packed_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grads, cells, batch_index, offsets, sizes, grid, channels_last = inputs
    ctx.save_for_backward(cells, batch_index, offsets)
    factor = sizes[2] // grid[0]
    ctx.plan = (grads[0].shape[0] // factor**2, grid)
    ctx.format = _format(channels_last)


def _packed_double_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    maps = [g.contiguous(memory_format=ctx.format) for g in grads]
    values = _OPS.encompass_crop_packed(maps, *ctx.saved_tensors, *ctx.plan, True)
    return values, None, None, None, None, None, None


_register = torch.library.register_autograd
_register("segroi::encompass_crop", _crops_backward, setup_context=_save_crops)
_register(
    "segroi::encompass_crop_backward", _crops_double_backward, setup_context=_save_crops_backward
)
_register("segroi::encompass_crop_packed", _packed_backward, setup_context=_save_packed)
_register(
    "segroi::encompass_crop_packed_backward",
    _packed_double_backward,
    setup_context=_save_packed_backward,
)
