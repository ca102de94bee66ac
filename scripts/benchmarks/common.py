"""What the benchmarks share: rows that take turns in one process, checked equal, then timed.

A benchmark is a ratio: a machine's speed drifts, so every round runs every row once and the medians
are compared. Tables go to one JSON with device, versions, commit and build; ``report.py`` turns
those into the README's table and a plot.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import torch
from torch import Tensor

from segroi.utils.provenance import provenance

Row = Callable[[], Tensor]
Rows = dict[str, Row]
CUDA_CALLS = 10
RESULTS = Path(__file__).resolve().parent / "results"


def arguments(description: str, repeat: int) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts")
    parser.add_argument("--repeat", type=int, default=repeat, help="rounds (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="file to write")
    return parser


def largest_difference(rows: Rows, truth: Row | None = None) -> float:
    """Of any row to ``truth``, the first one unless given, relative to its largest value."""
    wanted = (truth or next(iter(rows.values())))().float()
    size = wanted.abs().max()
    return max(float((row().float() - wanted).abs().max() / size) for row in rows.values())


def milliseconds(row: Row, cuda: bool = False) -> float:
    """One call; on CUDA the mean of several in a row between two events, so that both a busy host
    and a busy device show, and the wait at the end does not.
    """
    if not cuda:
        start = time.perf_counter()
        row()
        return (time.perf_counter() - start) * 1e3
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(CUDA_CALLS):
        row()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / CUDA_CALLS


def table(
    title: str,
    rows: Rows,
    repeat: int,
    tolerance: float = 1e-4,
    truth: Row | None = None,
    unchecked: Collection[str] = (),
    **facts: object,
) -> dict[str, object]:
    """Check the rows, time them in turns, print and return them; the first row is the measure.

    Args:
        title: what is measured.
        rows: names and calls, the peer first; each gives the tensor that is compared.
        repeat: rounds that count; one more goes before them.
        tolerance: largest relative difference to ``truth``.
        truth: what the rows must give (default: what the first row gives).
        unchecked: rows that are timed whatever they give.
        facts: what tells this table from others, for ``report.py``.
    """
    error = largest_difference({n: r for n, r in rows.items() if n not in unchecked}, truth)
    if not error <= tolerance:
        raise SystemExit(f"{title}: rows differ by {error:.2e}, nothing is timed")
    cuda = next(iter(rows.values()))().is_cuda
    load = os.getloadavg()[0]
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeat):
        for name, row in rows.items():
            times[name].append(milliseconds(row, cuda))
    medians = {name: statistics.median(values) for name, values in times.items()}
    spread = {name: [min(values), max(values)] for name, values in times.items()}
    first = next(iter(medians.values()))
    print(f"{title} (load {load:.1f}, rows agree to {error:.0e})", flush=True)
    for name, value in medians.items():
        print(f"  {name:40} {value:9.2f} ms {first / value:7.2f}x", flush=True)
    return {
        "title": title,
        **facts,
        "load": load,
        "error": error,
        "milliseconds": medians,
        "spread": spread,
    }


def save(path: Path | None, tables: Iterable[dict[str, object]]) -> None:
    """Write tables and where they come from, if a file was asked for."""
    record = {**provenance(), "tables": list(tables)}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
