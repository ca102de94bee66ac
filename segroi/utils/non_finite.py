"""Where the first number that is not finite comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def first_non_finite(model: nn.Module, run: Callable[[], object]) -> dict[str, Any] | None:
    """Run a model and tell the first module whose output is not finite.

    Args:
        model: the model.
        run: calls it; errors that it raises on such numbers are ignored.

    Returns:
        ``module`` (its name), ``kind`` (its class), ``inputs_finite`` (whether it made the number
        itself) and ``parameters_finite``; None where all outputs are finite.
    """
    found: list[dict[str, Any]] = []

    def look(name: str) -> Callable:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not found and not is_finite(output):
                found.append(
                    {
                        "module": name,
                        "kind": type(module).__name__,
                        "inputs_finite": is_finite(inputs),
                        "parameters_finite": is_finite(list(module.parameters())),
                    }
                )

        return hook

    handles = [m.register_forward_hook(look(name)) for name, m in model.named_modules() if name]
    try:
        run()
    except (FloatingPointError, RuntimeError, ValueError, AssertionError):
        if not found:
            raise
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def is_finite(value: object) -> bool:
    """Whether every tensor of floats within a value is finite."""
    floats = (tensor for tensor in _tensors(value) if tensor.is_floating_point())
    return all(bool(torch.isfinite(tensor).all()) for tensor in floats)


def names_not_finite(values: Mapping[str, Tensor | None]) -> list[str]:
    """The names of tensors that hold a number that is not finite."""
    return [name for name, value in values.items() if value is not None and not is_finite(value)]


def _tensors(value: object, depth: int = 0) -> Iterator[Tensor]:
    """The tensors in lists, dicts, dataclasses and objects that hold some (boxes, instances)."""
    if isinstance(value, Tensor):
        yield value
    elif depth > 6 or value is None or isinstance(value, str | bytes | int | float | nn.Module):
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item, depth + 1)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _tensors(item, depth + 1)
    elif dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        yield from _tensors(vars(value), depth + 1)
