"""The memory layout of a map, and of what is made from it: what ``csrc/layout.h`` says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segroi._extension import is_built


def is_channels_last(features: Tensor) -> bool:
    """Whether channels lie side by side, be they only some of a wider map's."""
    return features.shape[1] > 1 and features.stride(1) == 1 and not features.is_contiguous()


def layout_of(features: Tensor) -> torch.memory_format:
    """Memory format of the results and gradients of ``features``."""
    return torch.channels_last if is_channels_last(features) else torch.contiguous_format


def empty_large(like: Tensor, size: Sequence[int], channels_last: bool) -> Tensor:
    """An uninitialised tensor of ``like``'s dtype and device, as the operators make their results.

    On a CPU a large one is in huge pages, and takes over memory that an earlier one gave back:
    fresh pages cost more than most kernels that write into them.

    Args:
        like: Tensor of any shape.
        size: N, C, H and W.
        channels_last: whether the channels lie side by side.

    Returns:
        Tensor[N, C, H, W].
    """
    if is_built():
        return torch.ops.segroi.empty_large(like, list(size), channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(*size, dtype=like.dtype, device=like.device, memory_format=layout)
