"""Time whole systems from a JPEG file to masks in the image, batch 1, with random weights.

Every row lives in a process of its own, so that its peak memory is its own; the processes take
turns, so that all rows see the same machine. Proposals and detections are fixed in number and
place. Memory is a process's peak over what it held before the model was built (on CUDA: what
PyTorch allocated). --record writes into the results of the projects that ask for a table.

    python scripts/benchmarks/bench_models.py --group ssd_isb \
        --json scripts/benchmarks/results/models_ssd_isb.json --record
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import re
import resource
import statistics
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import save
from model_rows import ROOT, Setting, count_parameters, detectron2_row, jpeg
from model_tables import GROUPS, TABLES, Table

from segroi.utils.project_results import record

MB = 1e6
LIBRARIES = {
    "detectron2_row": ("detectron2.model_zoo", "segroi.d2"),
    "ssd_isb_row": ("segroi.modeling.ssd.ssd_isb",),
    "semantic_row": ("segroi.modeling.semantic.low_cost",),
}


class Worker:
    """One row in a process of its own."""

    def __init__(self, table: str, row: str, setting: Setting, threads: int) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, table, row, setting, threads)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.facts = self._receive(row)

    def time(self) -> float:
        """Milliseconds of one image."""
        self.connection.send("run")
        return self._receive("a run")

    def stop(self) -> float:
        """End the process; tells its peak memory in MB."""
        self.connection.send("stop")
        memory = self._receive("the end")
        self.process.join()
        return memory

    def _receive(self, what: str) -> Any:
        try:
            return self.connection.recv()
        except EOFError:
            raise SystemExit(f"the process of {what} died, see its message above") from None


@torch.inference_mode()
def serve(connection: Connection, table: str, row: str, setting: Setting, threads: int) -> None:
    """Build a row and time it as often as asked; runs in the row's process."""
    torch.set_num_threads(threads)
    data = jpeg(setting.image)
    cuda = setting.device == "cuda"
    entry = TABLES[table].rows[row]
    for module in LIBRARIES[entry.build.__name__]:  # their memory is no part of the model's
        importlib.import_module(module)
    before = peak_memory()
    model, predict = entry.build(setting, **entry.arguments)
    connection.send({"parameters": count_parameters(model), "found": predict(data)})
    while connection.recv() == "run":
        start = time.perf_counter()
        predict(data)
        if cuda:
            torch.cuda.synchronize()
        connection.send((time.perf_counter() - start) * 1e3)
    peak = torch.cuda.max_memory_allocated() if cuda else peak_memory() - before
    connection.send(peak / MB)


def peak_memory() -> int:
    """Most bytes of main memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, table: Table, rows: Sequence[str], args: argparse.Namespace) -> dict:
    """Start all rows, let them take turns, and print and return their numbers."""
    setting = table.setting
    load = os.getloadavg()[0]
    workers = {row: Worker(name, row, setting, args.threads) for row in rows}
    times: dict[str, list[float]] = {row: [] for row in rows}
    for _ in range(args.repeat):
        for row, worker in workers.items():
            times[row].append(worker.time())
    memory = {row: worker.stop() for row, worker in workers.items()}
    p50 = {row: statistics.median(values) for row, values in times.items()}
    print(f"{table.title} ({describe(table)}, load {load:.1f})")
    for row in rows:
        ratio, used = p50[rows[0]] / p50[row], memory[row]
        print(f"  {row:34} {p50[row]:9.1f} ms {ratio:7.2f}x {used:8.0f} MB", flush=True)
    return {
        "title": table.title,
        "setting": describe(table),
        "threads": args.threads,
        "repeat": args.repeat,
        "load": load,
        "milliseconds": p50,
        "p95": {row: float(np.percentile(values, 95)) for row, values in times.items()},
        "megabytes": memory,
        "parameters": {row: worker.facts["parameters"] for row, worker in workers.items()},
        "found": {row: worker.facts["found"] for row, worker in workers.items()},
    }


def describe(table: Table) -> str:
    """One line about a table's setting."""
    setting = table.setting
    height, width = setting.image
    parts = [f"image of {height}×{width} px"]
    if any(row.build is detectron2_row for row in table.rows.values()):
        size = setting.resize
        size = f"{size[0]}×{size[1]}" if isinstance(size, tuple) else f"a short side of {size}"
        parts.append(f"Detectron2's resized to {size}, {setting.proposals} proposals")
    if table.group != "semantic":
        parts.append(f"{setting.objects} objects unless a row says otherwise")
    return ", ".join([*parts, f"random weights, on {setting.device}"])


def record_results(table: Table, measured: dict, cuda: bool) -> None:
    """Write the rows that a project's table asks for into its results.json."""
    file, table_id = table.results
    shown = {}
    for name, row in table.rows.items():
        if not row.result or name not in measured["milliseconds"]:
            continue
        seconds = measured["milliseconds"][name] / 1e3
        rate, used = round(1 / seconds, 2), measured["megabytes"][name]
        if table_id == "speed":
            shown[row.result] = [rate]
        elif table_id == "table4":
            shown[row.result] = [round(seconds, 3), round(used / 1e3, 2)]
        else:
            rates = [rate, None] if cuda else [None, rate]
            shown[row.result] = [*rates, round(used, 1), measured["parameters"][name]]
    record(ROOT / file, table_id, shown)


def main() -> None:
    """Measure the chosen tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--group", nargs="+", choices=GROUPS, default=GROUPS)
    add("--tables", nargs="+", choices=TABLES, help="only these of the groups' tables")
    add("--rows", metavar="REGEX", default="", help="only the first row and those that match")
    add("--repeat", type=int, default=5, help="rounds (default %(default)s)")
    add("--threads", type=int, default=2)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--image", type=int, nargs=2, metavar=("H", "W"), help="px of the picture")
    add("--resize", type=int, metavar="PX", help="short side that Detectron2 resizes to")
    add("--proposals", type=int, help="of the RPN")
    add("--json", type=Path, help="file to write")
    add("--record", action="store_true", help="write into the projects' results.json")
    args = parser.parse_args()
    measured = []
    for name in args.tables or [n for n, t in TABLES.items() if t.group in args.group]:
        changes = {"device": args.device, "image": args.image and tuple(args.image)}
        changes |= {"resize": args.resize, "proposals": args.proposals}
        setting = {key: value for key, value in changes.items() if value is not None}
        table = TABLES[name]
        table = dataclasses.replace(table, setting=dataclasses.replace(table.setting, **setting))
        rows = [row for i, row in enumerate(table.rows) if i == 0 or re.search(args.rows, row)]
        measured.append(measure(name, table, rows, args))
        if args.record and table.results[0]:
            record_results(table, measured[-1], args.device == "cuda")
    save(args.json, measured)


if __name__ == "__main__":
    main()
