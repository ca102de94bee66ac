"""Optimizers other than Detectron2's SGD."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from segroi.utils.optim import TFRMSprop


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that ``SOLVER.OPTIMIZER`` names: Detectron2's "SGD", "AdamW" or "TFRMSprop".

    Raises:
        ValueError: if the name is another.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        return build_sgd(cfg, model)
    if solver.OPTIMIZER not in ("AdamW", "TFRMSprop"):
        raise ValueError(
            f"SOLVER.OPTIMIZER must be SGD, AdamW or TFRMSprop, got {solver.OPTIMIZER!r}"
        )
    params = get_default_optimizer_params(
        model, base_lr=solver.BASE_LR, weight_decay_norm=solver.WEIGHT_DECAY_NORM
    )
    if solver.OPTIMIZER == "AdamW":
        return torch.optim.AdamW(params, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
    return TFRMSprop(
        params,
        lr=solver.BASE_LR,
        decay=solver.RMSPROP_DECAY,
        eps=solver.RMSPROP_EPS,
        momentum=solver.MOMENTUM,
        weight_decay=solver.WEIGHT_DECAY,
    )
