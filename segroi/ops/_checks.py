"""Checks that the operators share; a text names operator, argument, what was expected, got."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def describe(value: Any) -> str:
    """What came, in words: `float16 Tensor[7, 4] on cpu`."""
    if isinstance(value, Tensor):
        shape = "(nested)" if value.is_nested else list(value.shape)
        return f"{str(value.dtype)[6:]} Tensor{shape} on {value.device}"
    return f"{type(value).__name__} {value!r}"


def wrong(kind: type[Exception], op: str, argument: str, expected: str, got: Any) -> Exception:
    """The exception to raise for a wrong argument."""
    return kind(f"{op}: {argument} must be {expected}, got {describe(got)}")


def is_int(value: Any) -> bool:
    """Whether this is an integer (a bool is none; a SymInt is one)."""
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def pair(op: str, argument: str, size: Any) -> list[int]:
    """Height and width from an int or a pair of ints."""
    both = [size, size] if is_int(size) else size
    if not (
        isinstance(both, (list, tuple, torch.Size))
        and len(both) == 2
        and all(is_int(n) for n in both)
    ):
        raise wrong(TypeError, op, argument, "an int or a pair of ints", size)
    return list(both)


def dense(op: str, argument: str, value: Any) -> None:
    """Refuse whatever is not a plain strided tensor."""
    plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested
    if not plain or value.is_quantized:
        raise wrong(TypeError, op, argument, "a dense Tensor", value)


def choice(op: str, argument: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not among the allowed ones."""
    if value not in allowed:
        raise wrong(ValueError, op, argument, " or ".join(map(repr, allowed)), value)
