"""A progress bar with losses and time left, on stderr; plain lines where that is no terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINES = 10  # lines a run where the output is no terminal


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
        self.live = sys.stderr.isatty()
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
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
        self.move_to(self.done + 1, values)

    def move_to(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """So many iterations are done; ``values`` are the losses of the last."""
        if done <= self.done:
            return
        step = max(1, self.total // LINES)
        line_due = done // step > self.done // step or done == self.total
        self.done = done
        self.recent.append(values or {})
        self.bar.update(self.task, completed=done, text=self._text())
        if not self.live and line_due:
            spent = time.perf_counter() - self.started
            left = spent / (done - self.first) * (self.total - done)
            line = f"{self.title} {done}/{self.total}  {left:.0f} s left  {self._text()}"
            print(line.rstrip(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        names = self.recent[-1] if self.recent else {}
        count = len(self.recent)
        means = {
            n: sum(v.get(n, 0.0) for v in self.recent) / count
            for n in names
            if n.startswith(("loss", "total"))
        }
        return " ".join(f"{n.removeprefix('loss_')} {v:.3f}" for n, v in means.items())


def track(items: Iterable, title: str) -> Iterator:
    """Yield the items (of known length) under a progress bar."""
    assert isinstance(items, Sized)
    with Progress(title, len(items)) as progress:
        for item in items:
            yield item
            progress.advance()


def say(text: str) -> None:
    """Announce a step."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold cyan]segroi[/] {escape(text)}"
    )
