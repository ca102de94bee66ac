"""List the models of both hosts: what they predict, what they need, where to read about them.

segroi models                  all of them; those of torchvision with their parameters
segroi models --count          and those of Detectron2 (which must be installed)
segroi models mask_rcnn_groie  the arguments of one, for segroi train model_args.NAME=VALUE
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Mapping

from segroi.utils.suggest import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("name", nargs="?", help="show the arguments of this model")
    add("--classes", type=int, default=80, help="classes to count with (%(default)s)")
    add("--count", action="store_true", help="count the parameters of Detectron2's models too")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the models, or the arguments of one."""
    from segroi.tv.models import MODELS, model_arguments

    if args.name:
        from segroi.cli._systems import check_name

        check_name(args.name)
        rows = {key: repr(value) for key, value in model_arguments(args.name).items()}
        _output(args, rows) or _table("", ("argument", "default"), rows)
        return 0
    ours = {name: _facts(name, args.classes) for name in MODELS}
    theirs = _detectron2(args.count)
    if _output(args, {"torchvision": ours, "detectron2": theirs}):
        return 0
    _table("segroi train --model NAME", ("model", "parameters", "predicts", "what it is"), ours)
    if theirs:
        print()
        heads = ("model", *(("parameters",) if args.count else ()), "what it is", "needs", "page")
        shown = {
            name: {key: value for key, value in row.items() if key != "config"}
            for name, row in theirs.items()
        }
        title = "segroi train --host d2 --model NAME"
        _table(title, heads, shown)
    return 0


def _output(args: argparse.Namespace, rows: Mapping) -> bool:
    if args.json:
        print(json.dumps(rows, indent=2))
    return args.json


def _table(title: str, head: tuple[str, ...], rows: Mapping[str, object]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, box=None, pad_edge=False, title=title or None, title_justify="left")
    table.columns[0].no_wrap = True
    for name, row in rows.items():
        values = row.values() if isinstance(row, dict) else [row]
        cells = (f"{v:,}" if isinstance(v, int) else str(v) for v in values)
        table.add_row(escape(name), *map(escape, cells))
    Console().print(table)


def _facts(name: str, classes: int) -> dict[str, object]:
    import torch

    from segroi.tv.models import MODELS, build_model

    entry = MODELS[name]
    with torch.device("meta"):
        model = build_model(name, classes)
    count = sum(p.numel() for p in model.parameters())
    return {"parameters": count, "predicts": ", ".join(entry.kinds), "what": entry.summary}


def _detectron2(count: bool) -> dict[str, dict[str, object]]:
    """The systems of Detectron2 by name; none without a checkout."""
    from segroi.cli._systems import ROOT, detectron2_systems

    if count and importlib.util.find_spec("detectron2") is None:
        raise UsageError("--count needs Detectron2: segroi doctor tells how to install it")
    rows: dict[str, dict[str, object]] = {}
    for system in detectron2_systems():
        facts = {"what": system.what, "needs": system.needs, "page": system.page}
        if count:
            from segroi.d2.parameters import count_parameters

            facts = {"parameters": count_parameters(ROOT / system.config), **facts}
        rows[system.name] = {**facts, "config": system.config}
    return rows
