"""Gradients of modules that have nothing to do in a step."""

from __future__ import annotations

from torch import Tensor, nn


def touch_parameters(x: Tensor, *modules: nn.Module) -> Tensor:
    """Return x unchanged, but depending on every parameter of the modules, with zero gradient.

    Distributed training waits for a gradient of every parameter, also in a step where a module
    had no RoI to work on. Nothing is multiplied by 0, so an infinite parameter does no harm.

    Args:
        x: any floating-point tensor, for instance an output with no rows or a loss.
        modules: modules whose parameters take part.

    Returns:
        A tensor equal to x.
    """
    for module in modules:
        for parameter in module.parameters():
            x = x + parameter.flatten()[:0].sum()
    return x
