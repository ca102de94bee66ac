"""Encompassing boxes: integer crops of feature maps, without resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segroi import _extension
from segroi.ops._checks import dense, pair
from segroi.ops.reference import encompass_crop as reference

if _extension.is_built():
    from segroi.ops import _encompass_crop  # noqa: F401  (registers fake kernels and gradients)

Size = tuple[int, int]
Maps = Tensor | Sequence[Tensor]


def encompassing_boxes(
    boxes: Tensor, image_size: Size, grid_size: int | Size, on_invalid: str = "raise"
) -> Tensor:
    """Cells of the smallest grid-aligned boxes that contain ``boxes`` (SSD-ISB, section 3.2).

    A corner within 1e-6 cells of a grid line lies on it. The result is clipped to the grid and has
    at least one cell: a box of no area, an inverted box or one outside gives the cell that holds
    its (x0, y0) corner, or the nearest one.

    Args:
        boxes: Tensor[K, 4] (x0, y0, x1, y1) in px, float32 or float64.
        image_size: (height, width) in px of the image that the grid covers.
        grid_size: (rows, columns) of the grid, or one number for both.
        on_invalid: what a NaN or infinite box does: "raise", or "zero" (the empty cells 0, 0, 0,
            0).

    Returns:
        int64 Tensor[K, 4] (x0, y0, x1, y1) in cells, half-open.

    Raises:
        ValueError: a box is not finite, or a size is not positive.
        TypeError: ``boxes`` is neither float32 nor float64.

    Example:
        >>> encompassing_boxes(torch.tensor([[33.0, 0.0, 96.0, 40.0]]), (640, 640), 20)
        tensor([[1, 0, 3, 2]])
    """
    dense("encompassing_boxes", "boxes", boxes)
    if boxes.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"encompassing_boxes: boxes must be float32 or float64, got {boxes.dtype}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"encompassing_boxes: boxes must be Tensor[K, 4], got shape {list(boxes.shape)}"
        )
    grid = pair("encompassing_boxes", "grid_size", grid_size)
    image = pair("encompassing_boxes", "image_size", image_size)
    op = torch.ops.segroi.encompassing_boxes if _built() else reference.encompassing_boxes
    return op(boxes.detach(), image, grid, _zero("encompassing_boxes", on_invalid))


def stack_rows(branch: Tensor, rows: Sequence[int], on_invalid: str = "raise") -> Tensor:
    """The box that each row of each stack of :func:`encompass_crop` shows.

    Args:
        branch: Tensor[K] int, the stack of each box; -1 for none. Boxes keep their order.
        rows: number of rows of each stack.
        on_invalid: what a branch out of range, or a box that finds its stack full, does: "raise" or
            "zero" (it is left out).

    Returns:
        int64 Tensor[sum(rows)]: index of a box, or -1 for a row that stays zero.
    """
    op = torch.ops.segroi.stack_rows if _built() else reference.stack_rows
    return op(_integer("stack_rows", "branch", branch), list(rows), _zero("stack_rows", on_invalid))


def encompass_crop(
    features: Maps,
    cells: Tensor,
    batch_index: Tensor,
    shapes: Sequence[Size],
    branch: Tensor | None = None,
    rows: Sequence[int] | None = None,
    *,
    grid_size: Size | None = None,
    on_invalid: str = "raise",
    out: Sequence[Any] | None = None,
) -> list[Any]:
    """Cut boxes of whole cells out of the maps of a pyramid, into zero-padded stacks.

    One launch serves all boxes, all shapes and all maps. Crops are exact copies; their gradient is
    the sum over the boxes that show a pixel, in a fixed order (deterministic on every device).

    Args:
        features: Tensor[N, C, f * H, f * W], or several maps of one pyramid whose sizes are integer
            multiples ``f`` of the grid H x W; any dtype. C may differ.
        cells: Tensor[K, 4] int (x0, y0, x1, y1) in cells, half-open.
        batch_index: Tensor[K] int, the image of each box.
        shapes: (h, w) in cells of each stack.
        branch: Tensor[K] int, the stack that each box goes to, -1 for none; may be left out where
            there is one shape. A box lies in the top left corner of its row.
        rows: number of rows of each stack; by default as many as it has boxes (for several shapes
            this reads ``branch``, which stops the host on CUDA). Rows left over are zero.
        grid_size: (H, W) of the grid, by default the size of the smallest map.
        on_invalid: what wrong values do (cells empty, outside the grid or larger than their shape,
            a batch index or branch out of range, no row left): "raise", or "zero" (no crop: the
            row is zero and gives no gradient).
        out: tensors to write into, nested as the result; for calls without gradient.

    Returns:
        ``crops[shape][map]``: Tensor[rows, C, f * h, f * w]; ``crops[shape]`` where ``features`` is
        one tensor. Channels last where all maps are. :func:`stack_rows` tells whose row is whose.

    Raises:
        ValueError: wrong shapes, or wrong values under ``on_invalid="raise"``.
        TypeError: ``cells``, ``batch_index`` or ``branch`` are not integers.
    """
    name = "encompass_crop"
    shapes = [pair(name, "shapes", shape) for shape in shapes or ()]
    maps, grid = _maps(name, features, grid_size)
    cells, batch_index = _boxes(name, cells, batch_index, maps[0])
    zero = _zero(name, on_invalid)
    if branch is None and len(shapes) != 1:
        raise ValueError(f"{name}: branch must be given for {len(shapes)} shapes, got None")
    if branch is None and rows is None:  # every box has its own row
        rows = [cells.shape[0]]
        source = torch.arange(cells.shape[0], device=cells.device)
    else:
        branch = cells.new_zeros(cells.shape[0]) if branch is None else branch
        branch = _integer(name, "branch", branch)
        if branch.shape != batch_index.shape:
            raise ValueError(f"{name}: branch must be Tensor[K], got shape {list(branch.shape)}")
        if rows is None:
            rows = [cells.shape[0]] if len(shapes) == 1 else _count(branch, len(shapes))
        source = stack_rows(branch, rows, on_invalid)
    flat = [side for shape in shapes for side in shape]
    if out is not None:
        return _into(out, maps, (cells, batch_index, source, flat, list(rows), list(grid), zero))
    if _built():
        crops = torch.ops.segroi.encompass_crop(
            maps, cells, batch_index, source, flat, list(rows), list(grid), zero
        )
    else:
        crops = reference.encompass_crop(
            maps, cells, batch_index, source, list(shapes), rows, grid, zero
        )
    return _nest(crops, isinstance(features, Tensor), len(maps))


def encompass_crop_packed(
    features: Maps,
    cells: Tensor,
    batch_index: Tensor,
    *,
    grid_size: Size | None = None,
    on_invalid: str = "raise",
) -> tuple[Any, Tensor]:
    """Cut boxes of whole cells out of maps, one after the other, without padding.

    The arguments are those of :func:`encompass_crop`. The number of pixels depends on the values of
    ``cells``, so the host waits for a CUDA device once.

    Returns:
        The values of each map, Tensor[T * f * f, C], where box k fills the rows
        ``offsets[k] * f * f`` to ``offsets[k + 1] * f * f``, line by line; and ``offsets``, int64
        Tensor[K + 1] in cells, as ``torch.nested.nested_tensor_from_jagged`` takes them. The
        memory is channel-major where the maps are not channels last.
    """
    name = "encompass_crop_packed"
    maps, grid = _maps(name, features, grid_size)
    cells, batch_index = _boxes(name, cells, batch_index, maps[0])
    zero = _zero(name, on_invalid)
    if not _built():
        values = reference.encompass_crop_packed(maps, cells, batch_index, grid, zero)
    offsets = _packed_offsets(cells, batch_index, maps[0].shape[0], grid)
    if _built():
        total = int(offsets[-1])
        torch._check(total >= 0)
        values = torch.ops.segroi.encompass_crop_packed(
            maps, cells, batch_index, offsets, total, list(grid), zero
        )
    return (values[0] if isinstance(features, Tensor) else values), offsets


class EncompassCrop(nn.Module):
    """:func:`encompass_crop` with fixed shapes and rows."""

    def __init__(
        self,
        shapes: Sequence[Size],
        rows: Sequence[int] | None = None,
        grid_size: Size | None = None,
        on_invalid: str = "raise",
    ) -> None:
        super().__init__()
        self.shapes = [tuple(shape) for shape in shapes]
        self.rows = None if rows is None else list(rows)
        self.grid_size = grid_size
        self.on_invalid = on_invalid

    def forward(
        self, features: Maps, cells: Tensor, batch_index: Tensor, branch: Tensor | None = None
    ) -> list[Any]:
        """Crops of ``features``; see :func:`encompass_crop`."""
        return encompass_crop(
            features,
            cells,
            batch_index,
            self.shapes,
            branch,
            self.rows,
            grid_size=self.grid_size,
            on_invalid=self.on_invalid,
        )

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"shapes={self.shapes}, rows={self.rows}, grid_size={self.grid_size}"


def _built() -> bool:
    return _extension.is_built()


def _zero(name: str, on_invalid: str) -> bool:
    if on_invalid not in ("raise", "zero"):
        raise ValueError(f"{name}: on_invalid must be 'raise' or 'zero', got {on_invalid!r}")
    return on_invalid == "zero"


def _integer(name: str, argument: str, t: Tensor) -> Tensor:
    if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
        raise TypeError(f"{name}: {argument} must be integers, got {t.dtype}")
    return t.long()


def _maps(name: str, features: Maps, grid_size: Size | None) -> tuple[list[Tensor], Size]:
    maps = list(features) if isinstance(features, (list, tuple)) else [features]
    for each in maps:
        dense(name, "features", each)
    if not maps or any(m.dim() != 4 for m in maps):
        shapes = [list(m.shape) for m in maps]
        raise ValueError(f"{name}: features must be Tensor[N, C, H, W], got shapes {shapes}")
    if any(m.dtype != maps[0].dtype for m in maps):
        raise TypeError(f"{name}: features must share a dtype, got {[m.dtype for m in maps]}")
    height, width = grid_size or maps[0].shape[2:]
    if grid_size is None:
        for m in maps[1:]:
            if m.shape[2] < height:
                height, width = m.shape[2:]
    for m in maps:
        factor = m.shape[2] // max(height, 1)
        if factor < 1 or m.shape[2:] != (factor * height, factor * width):
            raise ValueError(
                f"{name}: features must be an integer multiple of the grid {(height, width)}, "
                f"got {list(m.shape)}"
            )
    return maps, (height, width)


def _boxes(name: str, cells: Tensor, batch_index: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    cells = _integer(name, "cells", cells)
    batch_index = _integer(name, "batch_index", batch_index)
    if cells.dim() != 2 or cells.shape[1] != 4 or batch_index.shape != cells.shape[:1]:
        raise ValueError(
            f"{name}: cells and batch_index must be Tensor[K, 4] and Tensor[K], got "
            f"{list(cells.shape)} and {list(batch_index.shape)}"
        )
    if cells.device != like.device or batch_index.device != like.device:
        raise ValueError(
            f"{name}: cells and batch_index must be on {like.device}, got {cells.device} and "
            f"{batch_index.device}"
        )
    return cells, batch_index


def _count(branch: Tensor, stacks: int) -> list[int]:
    inside = branch[(branch >= 0) & (branch < stacks)]
    return torch.bincount(inside, minlength=stacks).tolist()


def _packed_offsets(cells: Tensor, batch_index: Tensor, images: int, grid: Size) -> Tensor:
    x0, y0, x1, y1 = cells.unbind(1)
    valid = (x0 >= 0) & (x0 < x1) & (x1 <= grid[1]) & (y0 >= 0) & (y0 < y1) & (y1 <= grid[0])
    valid = valid & (batch_index >= 0) & (batch_index < images)
    area = torch.where(valid, (x1 - x0) * (y1 - y0), 0)
    return torch.cat([area.new_zeros(1), area.cumsum(0)])


def _nest(crops: Sequence[Tensor], single: bool, maps: int) -> list[Any]:
    if single:
        return list(crops)
    return [list(crops[i : i + maps]) for i in range(0, len(crops), maps)]


def _into(out: Sequence[Any], maps: list[Tensor], arguments: tuple[Any, ...]) -> list[Any]:
    if torch.is_grad_enabled() and any(m.requires_grad for m in maps):
        raise ValueError("encompass_crop: out must not be given where features require a gradient")
    flat = [t for entry in out for t in ([entry] if isinstance(entry, Tensor) else entry)]
    if _built():
        torch.ops.segroi.encompass_crop.out(maps, *arguments, out=flat)
    else:
        cells, batch_index, source, sides, rows, grid, zero = arguments
        shapes = list(zip(sides[::2], sides[1::2]))
        crops = reference.encompass_crop(maps, cells, batch_index, source, shapes, rows, grid, zero)
        if [t.shape for t in flat] != [crop.shape for crop in crops]:
            raise ValueError(
                "encompass_crop: out must be tensors of the crops' sizes, got "
                f"{[list(t.shape) for t in flat]}"
            )
        for target, crop in zip(flat, crops):
            target.copy_(crop)
    return list(out)
