"""SIGTERM as a request: the iteration is finished, a checkpoint written, and the run ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

STATUS = 128 + signal.SIGTERM  # exit status of a run that was asked to stop


class StopSignal:
    """Notes that SIGTERM came, within a ``with`` block; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> StopSignal:
        # Only the main thread may set handlers; elsewhere the signal keeps its meaning.
        self._ours = threading.current_thread() is threading.main_thread()
        if self._ours:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave_sigterm_to_parent(worker: int = 0) -> None:
    """For processes that read images: a signal to the whole group ends the run, not them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
