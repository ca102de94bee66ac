"""Optimizers of the papers that are not Detectron2's SGD."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params
from torch import nn


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that ``SOLVER.OPTIMIZER`` names: Detectron2's "SGD", or "RMSprop".

    Raises:
        ValueError: if the name is another.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        return build_sgd(cfg, model)
    if solver.OPTIMIZER != "RMSprop":
        raise ValueError(f"SOLVER.OPTIMIZER must be SGD or RMSprop, got {solver.OPTIMIZER!r}")
    params = get_default_optimizer_params(
        model, base_lr=solver.BASE_LR, weight_decay_norm=solver.WEIGHT_DECAY_NORM
    )
    return torch.optim.RMSprop(
        params,
        lr=solver.BASE_LR,
        alpha=solver.RMSPROP_ALPHA,
        eps=solver.RMSPROP_EPS,
        momentum=solver.MOMENTUM,
        weight_decay=solver.WEIGHT_DECAY,
    )
