"""Errors that CUDA kernels report without stopping the host."""

from __future__ import annotations

import torch

from segroi import _extension


def check_errors(device: torch.device | int | None = None) -> None:
    """Wait for a CUDA device and raise what its kernels found wrong in RoIs since the last check.

    A CUDA operator in the ``on_invalid="raise"`` mode cannot read boxes without stopping the host.
    Its kernel gives a wrong RoI (a NaN box, a batch index out of range) the output 0 and leaves a
    note, which the next segroi operator on that device raises if it has arrived by then, and this
    function in any case. On the CPU errors are raised at once and there is nothing to check.

    Args:
        device: CUDA device, by default the current one.

    Raises:
        ValueError: names the operator and one of the wrong RoIs; the note is then cleared.
    """
    if not _extension.extension_info().get("cuda") or not torch.cuda.is_available():
        return
    index = torch.cuda._utils._get_device_index(device, optional=True)
    torch.cuda.synchronize(index)
    message = torch.ops.segroi.take_error(index)
    if message:
        raise ValueError(message)
