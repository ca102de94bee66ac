"""Feed every operator hostile inputs, each in its own process; no crash, hang or undefined value.

Every case runs forward and backward. Ours must raise an error that names operator and argument, or
give what the written semantics (the reference operators) give.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial

from segroi.verify.cases import Case
from segroi.verify.judge import judge, peer_roi_align
from segroi.verify.outcome import Outcome, isolated
from segroi.verify.suite import all_cases

_BROKEN = ("crash", "hang", "wrong")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compare", choices=("torchvision",), help="print this peer's outcome too")
    parser.add_argument("--only", default="", help="cases whose operator or name contains this")
    parser.add_argument("--every", type=int, default=1, help="only every so many cases")
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit of a case")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time (default 1)")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the cases and print one line each; 1 when one of ours crashed, hung or was wrong."""
    cases = _selected(args)
    ours: Counter[str] = Counter()
    peers: Counter[str] = Counter()
    rows = []
    for case, (outcome, peer) in zip(cases, _outcomes(len(cases), args), strict=True):
        ours[outcome.kind] += 1
        rows.append({"op": case.op, "case": case.name, "segroi": asdict(outcome)})
        if peer is not None:
            peers[peer.kind] += 1
            rows[-1][args.compare] = asdict(peer)
        if not args.json:
            _print(case, outcome, args.compare, peer)
    if args.json:
        print(json.dumps({"device": args.device, "count": ours, "peer": peers, "cases": rows}))
    else:
        print(f"{len(cases)} cases on {args.device}; segroi: {_count(ours)}")
        if peers:
            print(f"{args.compare}, {sum(peers.values())} comparable cases: {_count(peers)}")
    return int(not cases or any(ours[kind] for kind in _BROKEN))


def _selected(args: argparse.Namespace) -> list[Case]:
    return [c for c in all_cases() if args.only in f"{c.op}: {c.name}"][:: args.every]


def _outcomes(count: int, args: argparse.Namespace) -> Iterator[tuple[Outcome, Outcome | None]]:
    """Of the cases in their order; a case is found again by its number, since none can be sent."""
    one = partial(_outcome, args)
    if args.jobs == 1:
        yield from map(one, range(count))
        return
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("fork")) as workers:
        yield from workers.map(one, range(count))


def _outcome(args: argparse.Namespace, number: int) -> tuple[Outcome, Outcome | None]:
    case = _selected(args)[number]
    # CUDA reserves far more address space than it uses
    memory = 16 << 30 if args.device == "cpu" else None
    ours = isolated(lambda: judge(case, args.device), args.seconds, memory)
    return ours, _peer(case, args, memory) if args.compare else None


def _print(case: Case, outcome: Outcome, compare: str, peer: Outcome | None) -> None:
    print(f"{'BAD' if outcome.kind in _BROKEN else 'ok':3} {case.op}: {case.name}: {outcome}")
    if peer is not None:
        print(f"      {compare}: {peer}")


def _peer(case: Case, args: argparse.Namespace, memory: int | None) -> Outcome | None:
    outcome = isolated(lambda: peer_roi_align(case, args.device) or _NONE, args.seconds, memory)
    return None if outcome == _NONE else outcome


_NONE = Outcome("not comparable", "")


def _count(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
