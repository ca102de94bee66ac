"""Check that torch, torchvision, CUDA, Detectron2 and the operators fit together."""

from __future__ import annotations

import argparse
import json

from segroi.utils.environment import as_dict, collect, diagnose

MARKS = {
    "ok": "[green]ok[/]",
    "note": "note",
    "warning": "[yellow]warn[/]",
    "error": "[red]error[/]",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("--json", action="store_true", help="print facts and findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 where something is broken."""
    facts = collect()
    findings = diagnose(facts)
    broken = any(f.level == "error" for f in findings)
    if args.json:
        print(json.dumps(as_dict(facts, findings), indent=2))
        return int(broken)
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(MARKS[finding.level], escape(finding.what))
        if finding.fix:
            table.add_row("", f"  [dim]to change that:[/] {escape(finding.fix)}")
    Console(soft_wrap=True).print(table)
    return int(broken)
