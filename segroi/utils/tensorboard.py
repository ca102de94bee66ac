"""Curves for TensorBoard, where it is installed (the extra ``tensorboard``)."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Note = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def scalar_events(folder: str | Path, done: int = 0) -> Iterator[Note]:
    """Write scalars as events that TensorBoard shows; without TensorBoard nothing is written.

    Args:
        folder: the run's folder.
        done: iterations that a resumed run keeps; TensorBoard drops what came after them.

    Yields:
        A function of an iteration and its values by name.
    """
    if importlib.util.find_spec("tensorboard") is None:
        yield lambda iteration, values: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=done + 1 if done else None) as writer:

        def note(iteration: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, iteration)

        yield note
