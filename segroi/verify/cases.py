"""The hostile inputs of ``python -m segroi.verify badinputs``, as data.

A case takes good arguments, spoils them, and says which argument the error must name; where it
names none, the result and its gradients must be those of the reference operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]
Spoil = Callable[[Arguments], None]
NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Case:
    """One hostile input: operator, what is wrong, how to make it so, the argument to be named."""

    op: str
    name: str
    spoil: Spoil
    argument: str | None = None


def put(name: str, place: Any, value: float) -> Spoil:
    """Write one value into a tensor."""

    def spoil(arguments: Arguments) -> None:
        arguments[name][place] = value

    return spoil


def become(name: str, value: Any) -> Spoil:
    """Replace an argument; a function is applied to the good one."""

    def spoil(arguments: Arguments) -> None:
        arguments[name] = value(arguments[name]) if callable(value) else value

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(arguments: Arguments) -> None:
        for each in spoils:
            each(arguments)

    return spoil


def zeroed(arguments: Arguments) -> None:
    """Ask for zeros where a value is invalid."""
    arguments["on_invalid"] = "zero"


def value_cases(op: str, name: str, offset: int) -> Iterator[Case]:
    """NaN and infinity in each slot of a box; ``offset`` is the column of its first coordinate."""
    for value in (NAN, INF, -INF):
        for slot in range(4):
            spoil = put(name, (1, offset + slot), value)
            yield Case(op, f"{value} in slot {slot} of a box, raise", spoil, name)
            yield Case(op, f"{value} in slot {slot} of a box, zero", both(spoil, zeroed))


def box_cases(op: str, name: str, offset: int, unit: float) -> Iterator[Case]:
    """Finite boxes of every awkward kind; ``unit`` is the extent of the map in box units."""
    rows = {
        "inverted x": (0.5, 0.2, 0.2, 0.6),
        "inverted y": (0.2, 0.6, 0.5, 0.2),
        "inverted both": (0.5, 0.6, 0.2, 0.2),
        "of no width": (0.3, 0.2, 0.3, 0.6),
        "of no height": (0.3, 0.4, 0.6, 0.4),
        "a point": (0.3, 0.4, 0.3, 0.4),
        "a millionth wide": (0.3, 0.4, 0.3 + 1e-6, 0.4 + 1e-6),
        "left of the map": (-9.0, 0.1, -8.0, 0.4),
        "right of the map": (8.0, 0.1, 9.0, 0.4),
        "above the map": (0.1, -9.0, 0.4, -8.0),
        "below the map": (0.1, 8.0, 0.4, 9.0),
        "the whole map": (0.0, 0.0, 1.0, 1.0),
        "just beyond the map": (-1e-6, -1e-6, 1 + 1e-6, 1 + 1e-6),
        "negative zero": (-0.0, -0.0, 0.5, 0.5),
        "denormal": (1e-40, 1e-40, 2e-40, 2e-40),
        "1e5 units wide": (-1e5, -1e5, 1e5, 1e5),
        "1e9 units wide": (0.0, 0.0, 1e9, 1e9),
        "1e30 units wide": (-1e30, 0.0, 1e30, 1e30),
        "FLT_MAX wide": (-3.4e38, -3.4e38, 3.4e38, 3.4e38),
    }
    for label, row in rows.items():
        scale = unit if max(map(abs, row)) < 1e30 else 1.0
        place = (1, slice(offset, offset + 4))
        values = torch.tensor(row, dtype=torch.float64) * scale
        yield Case(op, f"box {label}", put(name, place, values.float()))
    yield Case(op, "all boxes within [0, 1]", become(name, _normalised(offset, unit)))


def _normalised(offset: int, unit: float) -> Callable[[Tensor], Tensor]:
    def shrink(boxes: Tensor) -> Tensor:
        boxes[:, offset:] /= 2 * unit
        return boxes

    return shrink


def index_cases(op: str, name: str, place: Any) -> Iterator[Case]:
    """Images that do not exist."""
    for value in (2, -1, 10**6, -(10**6), 2**31 - 1):
        spoil = put(name, place, value)
        yield Case(op, f"image {value} of 2, raise", spoil, name)
        yield Case(op, f"image {value} of 2, zero", both(spoil, zeroed))


def shape_cases(op: str, name: str, columns: int) -> Iterator[Case]:
    """Boxes of the wrong rank, width, type, or place; and unusual ones that are right."""
    wrong: dict[str, Any] = {
        "1-D": lambda t: t[0],
        "3-D": lambda t: t[None],
        f"{columns - 1} columns": lambda t: t[:, :-1],
        f"{columns + 1} columns": lambda t: torch.cat([t, t[:, :1]], 1),
        "half": lambda t: t.half(),
        "bfloat16": lambda t: t.bfloat16(),
        "double beside float": lambda t: t.double(),
        "int64": lambda t: t.long(),
        "complex": lambda t: t.to(torch.complex64),
        "sparse": lambda t: t.to_sparse(),
        "on meta": lambda t: t.to("meta"),
        "a list": lambda t: t.tolist(),
        "None": lambda t: None,
    }
    for label, change in wrong.items():
        yield Case(op, f"{name} {label}", become(name, change), name)
    yield Case(op, f"{name} not contiguous", become(name, lambda t: t.t().contiguous().t()))
    yield Case(op, f"{name} a stride-0 view", become(name, lambda t: t[:1].expand_as(t)))


def size_cases(op: str, name: str) -> Iterator[Case]:
    """Sizes of the result."""
    for value in (0, -1, 2.0, True, (2, 2, 2), (2, 0), (2**31, 2), None, "7"):
        yield Case(op, f"{name} {value!r}", become(name, value), name)
    for value in ((1, 1), (1, 9), (9, 1), (65, 3)):
        yield Case(op, f"{name} {value!r}", become(name, value))


def map_cases(op: str, level: Callable[[Any], Any]) -> Iterator[Case]:
    """Feature maps; ``level`` lifts a change of one map to a change of the argument."""
    wrong: dict[str, Any] = {
        "0-D": lambda t: t.sum(),
        "2-D": lambda t: t[0, 0],
        "3-D": lambda t: t[0],
        "5-D": lambda t: t[None],
        "without rows": lambda t: t[:, :, :0],
        "without columns": lambda t: t[..., :0],
        "int32": lambda t: t.int(),
        "uint8": lambda t: t.byte(),
        "bool": lambda t: t.bool(),
        "complex": lambda t: t.to(torch.complex64),
        "float8": lambda t: t.to(torch.float8_e4m3fn),
        "sparse": lambda t: t.to_sparse(),
        "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "nested": lambda t: torch.nested.nested_tensor([t[0], t[1]]),
        "None": lambda t: None,
        "an array": lambda t: t.cpu().numpy(),
    }
    for label, change in wrong.items():
        yield Case(op, f"features {label}", become("features", level(change)), "features")
    right: dict[str, Any] = {
        "half": lambda t: t.half(),
        "bfloat16": lambda t: t.bfloat16(),
        "double": lambda t: t.double(),
        "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "a stride-0 view": lambda t: t[:, :1, :1].expand_as(t),
        "a slice": lambda t: t[:, 1:, 1:-1, 2:],
        "channels of a channels_last map": lambda t: torch.cat([t, t], 1).contiguous(
            memory_format=torch.channels_last
        )[:, 1:4],
        "without channels": lambda t: t[:, :0],
        "of one cell": lambda t: t[:, :, :1, :1],
        "of one row": lambda t: t[:, :, :1],
        "huge values": lambda t: t * 1e30,
    }
    for label, change in right.items():
        yield Case(op, f"features {label}", become("features", level(change)))
