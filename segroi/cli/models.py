"""List the models that can be trained, with their parameters."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("name", nargs="?", help="show the arguments of this model")
    parser.add_argument(
        "--classes", type=int, default=80, help="classes to count with (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the models, or the arguments of one."""
    from rich.console import Console
    from rich.table import Table

    from segroi.tv.models import MODELS, model_arguments

    if args.name:
        rows = {key: repr(value) for key, value in model_arguments(args.name).items()}
        head = ("argument", "default")
    else:
        rows = {name: _facts(name, args.classes) for name in MODELS}
        head = ("model", "parameters", "predicts", "what it is")
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table(*head, box=None, pad_edge=False)
    for name, row in rows.items():
        values = row.values() if isinstance(row, dict) else [row]
        table.add_row(name, *(f"{v:,}" if isinstance(v, int) else str(v) for v in values))
    Console().print(table)
    return 0


def _facts(name: str, classes: int) -> dict[str, object]:
    import torch

    from segroi.tv.models import MODELS, build_model

    entry = MODELS[name]
    with torch.device("meta"):
        model = build_model(name, classes)
    count = sum(p.numel() for p in model.parameters())
    return {"parameters": count, "predicts": ", ".join(entry.kinds), "what": entry.summary}
