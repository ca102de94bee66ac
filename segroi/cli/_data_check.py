"""``segroi data check``: what is wrong with a data set, where, and what to do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING

from segroi.utils.suggest import UsageError

if TYPE_CHECKING:
    from segroi.utils.data_check import Findings

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
_LONG = 500  # images that a progress bar is shown for


def add_check(actions: argparse._SubParsersAction) -> None:
    """Add the action and its options to ``segroi data``."""
    check = actions.add_parser("check", help="find what is wrong with a data set")
    check.add_argument("json_file", metavar="FILE", help="annotations in COCO format")
    check.add_argument("--images", required=True, metavar="DIR", help="their images")
    check.add_argument("--val-data", metavar="FILE", help="validation annotations, checked too")
    check.add_argument("--val-images", metavar="DIR", help="their images (default: --images)")
    check.add_argument(
        "--quick", action="store_true", help="what training looks at: opens few of the images"
    )
    check.add_argument(
        "--fix", metavar="OUT", help="write a copy of FILE, mended where rules can do it"
    )
    check.add_argument("--examples", type=int, default=3, help="shown of each kind (%(default)s)")
    check.add_argument("--json", action="store_true", help="print everything as JSON")
    check.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print, mend; 1 where there are errors."""
    if args.examples < 1:
        raise UsageError("--examples must be at least 1")
    reports = _check(args)
    mended = _mend(args, reports[0]) if args.fix else None
    if args.json:
        content = {"ok": all(r.ok for r in reports), "files": [r.to_dict() for r in reports]}
        print(json.dumps(content | ({"fixed": mended} if mended else {}), indent=2))
    else:
        _print(reports, args.examples)
        if mended:
            print(
                f"wrote   {args.fix}: {mended['images']} images, {mended['annotations']} "
                f"annotations ({mended['images_left_out']} and "
                f"{mended['annotations_left_out']} left out)"
            )
    return 0 if all(report.ok for report in reports) else 1


def _check(args: argparse.Namespace) -> list[Findings]:
    from segroi.utils.data_check import check_dataset, check_split
    from segroi.utils.progress import track

    def bar(items: Sized, title: str) -> Iterable:
        return items if args.json or len(items) < _LONG else track(items, title)

    training = (args.json_file, args.images)
    validation = (args.val_data, args.val_images or args.images) if args.val_data else None
    reports = [check_dataset(*training, quick=args.quick, track=bar)]
    if validation:
        reports.append(check_dataset(*validation, quick=args.quick, track=bar))
    return [*reports, check_split(training, validation)]


def _mend(args: argparse.Namespace, findings: Findings) -> dict[str, int]:
    from segroi.utils.data_check import repair

    return repair(args.json_file, args.images, args.fix, findings)


def _print(reports: list[Findings], examples: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from segroi.utils.data_check import RULES

    console = Console(highlight=False)
    for report in reports:
        if not report.counts:
            continue
        table = Table(title=escape(report.file), title_justify="left", box=None, pad_edge=False)
        for name in ("what", "where", "found", "what to do"):
            table.add_column(name, overflow="fold")
        for code, found in report.by_severity():
            style = _STYLES[RULES[code].severity]
            shown = found[:examples]
            for finding in shown:
                first = finding is shown[0]
                cells = (code if first else "", finding.where, finding.what)
                cells += (finding.fix if first else "",)
                table.add_row(*map(escape, cells), style=style)
            more = report.counts[code] - len(shown)
            if more:
                table.add_row("", "", f"... and {more} more", "", style=style)
        console.print(table)
    errors, warnings = (sum(r.total(s) for r in reports) for s in ("error", "warning"))
    print(f"{errors} errors, {warnings} warnings")
