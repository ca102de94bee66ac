"""Run one piece of code in a process of its own and tell what became of it."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a probe did: ``value``, ``raised``, ``wrong``, ``crash`` or ``hang``, and its text."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


def isolated(probe: Callable[[], Outcome], seconds: float, memory: int | None = None) -> Outcome:
    """Fork, run the probe in the child, and survive whatever it does.

    The parent has imported everything and started no thread pool, so a child costs milliseconds.

    Args:
        probe: what to run; an exception that leaves it is the outcome ``raised``.
        seconds: time limit, after which the child is killed.
        memory: limit of the child's address space in bytes, so that a monstrous allocation fails
            instead of waking the kernel's out-of-memory killer.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(probe, writer, memory)
    os.close(writer)
    try:
        payload = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
    if payload is None:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if payload is None:
        return Outcome("hang", f"no answer in {seconds:g} s")
    if os.WIFSIGNALED(status):
        return Outcome("crash", signal.Signals(os.WTERMSIG(status)).name)
    return pickle.loads(payload) if payload else Outcome("crash", f"exit {status >> 8}")


def _child(probe: Callable[[], Outcome], writer: int, memory: int | None) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # a sanitizer's or glibc's last words would tear the table
    os.dup2(silence, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        outcome = probe()
    except Exception as error:
        outcome = Outcome("raised", f"{type(error).__name__}: {_first_line(error)}")
    os.write(writer, pickle.dumps(outcome))
    os._exit(0)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:1000]


def _read(reader: int, deadline: float) -> bytes | None:
    """Everything until the child closes the pipe, or None when the deadline comes first."""
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        chunk = os.read(reader, 65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def summary(value: Any) -> str:
    """A tensor in a few words."""
    shape = "x".join(map(str, value.shape))
    if value.numel() == 0 or value.is_meta:
        return f"[{shape}]"
    finite = value.detach().double().nan_to_num(float("nan"), 1e308, -1e308)
    return f"[{shape}] {finite.amin().item():.3g} .. {finite.amax().item():.3g}"
