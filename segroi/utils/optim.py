"""RMSProp as TensorFlow computes it, and what single parameters get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TFRMSprop(torch.optim.Optimizer):
    """RMSProp with epsilon inside the square root and a mean square that starts at one.

    ``ms = d ms + (1 - d) g^2``, ``v = m v + lr g / sqrt(ms + eps)``, ``w = w - v``. With the Object
    Detection API's epsilon of 1 it behaves much like SGD with momentum, so that loss weights scale
    the step; ``torch.optim.RMSprop`` differs in both points.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        decay: of the mean square.
        momentum: of the update.
        eps: added to the mean square.
        weight_decay: L2 term added to the gradient, ``weight_decay * w``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 4e-5,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or not 0 <= decay <= 1 or momentum < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(
                "TFRMSprop: lr, momentum, eps and weight_decay must not be negative and decay must "
                f"be in [0, 1], got {lr}, {momentum}, {eps}, {weight_decay}, {decay}"
            )
        defaults = {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return loss

    def _update(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["square"], state["velocity"] = torch.ones_like(p), torch.zeros_like(p)
        gradient = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
        square, velocity = state["square"], state["velocity"]
        square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        scaled = gradient / (square + group["eps"]).sqrt()
        velocity.mul_(group["momentum"]).add_(scaled, alpha=group["lr"])
        p.sub_(velocity)


def decay_convolutions(model: nn.Module, weight_decay: float = 4e-5) -> list[dict[str, Any]]:
    """Parameter groups in which convolution and linear weights decay, biases and norms do not."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]


def slow_modules(modules: Sequence[str], factor: float) -> Callable[[str], float]:
    """Factor of the learning rate by the name of a parameter.

    Args:
        modules: names of modules whose parameters learn more slowly.
        factor: their factor; that of other parameters is 1.

    Example:
        >>> slow_modules(["roi_heads.box_head"], 0.1)("roi_heads.box_head.fc1.weight")
        0.1
    """
    starts = tuple(f"{module}." for module in modules)
    return lambda name: factor if name.startswith(starts) else 1.0
