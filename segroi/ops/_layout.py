"""The memory layout of a map, and of what is made from it: what ``csrc/layout.h`` says."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(features: Tensor) -> bool:
    """Whether channels lie side by side, be they only some of a wider map's."""
    return features.shape[1] > 1 and features.stride(1) == 1 and not features.is_contiguous()


def layout_of(features: Tensor) -> torch.memory_format:
    """Memory format of the results and gradients of ``features``."""
    return torch.channels_last if is_channels_last(features) else torch.contiguous_format
