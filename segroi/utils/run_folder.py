"""The folder of a run: it can be written, and one run at a time writes there."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from segroi.utils.suggest import UsageError

try:
    import fcntl
except ImportError:  # Windows has no flock: two runs in a folder are not noticed there
    fcntl = None

LOCK = ".lock"


@contextlib.contextmanager
def run_folder(path: str | Path) -> Iterator[Path]:
    """Make the folder of a run and hold it; the system lets go of it when the process ends.

    Raises:
        UsageError: the folder cannot be written, or a live run writes there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as error:
        raise UsageError(f"output folder {folder} cannot be written: {error}") from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise UsageError(
                    f"output folder {folder} is that of a live run ({lock.read().strip()}): "
                    "wait for it, or give another folder"
                ) from error
            except OSError:  # a file system without locks
                pass
        _sign(lock)
        yield folder


def _sign(lock) -> None:  # noqa: ANN001
    """Tell the next one who holds the folder."""
    with contextlib.suppress(OSError):  # a full disk
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
