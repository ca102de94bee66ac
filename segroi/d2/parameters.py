"""How many parameters the model of a lazy config has."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import instantiate

from segroi.d2.trust import load_lazy_config


def count_parameters(path: str | Path) -> int:
    """Parameters of a lazy config's model, built without memory for them where that can be done."""
    config = load_lazy_config(path).model
    try:
        with torch.device("meta"):
            model = instantiate(config)
    except NotImplementedError:  # a constructor that looks at values: Grid R-CNN's
        model = instantiate(config)
    return sum(parameter.numel() for parameter in model.parameters())
