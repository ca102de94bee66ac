"""A progress bar with losses and time left; plain lines where the output is no terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINES = 20  # lines a run where the output is no terminal


class Progress:
    """Counts iterations and shows smoothed losses.

    Args:
        title: what is going on.
        total: iterations in all.
        done: iterations that were done before.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done, self.first = title, total, done, done
        self.recent: deque[Mapping[str, float]] = deque(maxlen=20)
        self.live = sys.stdout.isatty()
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(),
            disable=not self.live,
        )
        self.task = self.bar.add_task(title, total=total, completed=done, text="")

    def __enter__(self) -> Progress:
        self.started = time.perf_counter()
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def advance(self, values: Mapping[str, float] | None = None) -> None:
        """One iteration is done; ``values`` are its losses."""
        self.done += 1
        self.recent.append(values or {})
        self.bar.update(self.task, completed=self.done, text=self._text())
        step = max(1, self.total // LINES)
        if not self.live and (self.done % step == 0 or self.done == self.total):
            spent = time.perf_counter() - self.started
            left = spent / (self.done - self.first) * (self.total - self.done)
            line = f"{self.title} {self.done}/{self.total}  {left:.0f} s left  {self._text()}"
            print(line.rstrip(), flush=True)

    def _text(self) -> str:
        names = self.recent[-1] if self.recent else {}
        count = len(self.recent)
        means = {n: sum(v.get(n, 0.0) for v in self.recent) / count for n in names if n != "lr"}
        return " ".join(f"{n.removeprefix('loss_')} {v:.3f}" for n, v in means.items())


def track(items: Iterable, title: str) -> Iterator:
    """Yield the items (of known length) under a progress bar."""
    assert isinstance(items, Sized)
    with Progress(title, len(items)) as progress:
        for item in items:
            yield item
            progress.advance()
