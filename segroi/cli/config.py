"""Show a config with everything it inherits, or what differs between two.

segroi config show configs/tv/mask_rcnn_groie_digits.yaml lr=0.01
segroi config show configs/d2/mask_rcnn_groie_R_50_FPN_1x.py --only model.roi_heads
segroi config diff configs/d2/mask_rcnn_groie_R_50_FPN_1x.yaml configs/d2/Base-GRoIE.yaml

A file is a yaml of segroi train, or a yaml or lazy config of Detectron2 (which must be installed).
The folder of a run stands for its config.yaml.
"""

from __future__ import annotations

import argparse
import json

from segroi.utils.suggest import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="one config, resolved")
    show.add_argument("file", metavar="FILE", help="config or folder of a run")
    show.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="changes to it")
    show.set_defaults(run=_show)
    diff = actions.add_parser("diff", help="the settings that two configs do not share")
    diff.add_argument("file", metavar="A", help="config or folder of a run")
    diff.add_argument("other", metavar="B", help="config or folder of a run, of the same host")
    diff.set_defaults(run=_diff)
    for action in (show, diff):
        action.add_argument("--only", default="", metavar="PREFIX", help="settings below this key")
        action.add_argument(
            "--trust-config", action="store_true", help="run a lazy config from anywhere"
        )
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; diff gives 1 where there is a difference."""
    return args.run(args)


def _show(args: argparse.Namespace) -> int:
    leaves = _leaves(args.file, args.settings, args)
    if args.json:
        print(json.dumps(leaves, indent=2))
        return 0
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for key, value in leaves.items():
        console.print(f"[cyan]{escape(key)}[/]: {escape(json.dumps(value))}")
    return 0


def _diff(args: argparse.Namespace) -> int:
    from segroi.utils.settings import settings_difference

    first, second = (_leaves(file, (), args) for file in (args.file, args.other))
    rows = settings_difference(first, second)
    if args.json:
        print(json.dumps({key: [one, two] for key, one, two in rows}, indent=2))
        return int(bool(rows))
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for key, one, two in rows:
        console.print(f"[bold]{escape(key)}[/]")
        for mark, style, value in (("-", "red", one), ("+", "green", two)):
            if value is not None:
                console.print(f"  [{style}]{mark} {escape(value)}[/]")
    if not rows:
        console.print("no difference")
    return int(bool(rows))


def _leaves(file: str, settings: list[str] | tuple, args: argparse.Namespace) -> dict[str, object]:
    """The settings of a config by their dotted names."""
    from segroi.cli._config_files import read_config
    from segroi.utils.settings import flatten

    leaves = flatten(read_config(file, settings, args.trust_config))
    kept = {k: v for k, v in leaves.items() if f"{k}.".startswith(args.only.rstrip(".") + ".")}
    if not args.only:
        return leaves
    if not kept:
        raise UsageError(f"{file} has no setting below {args.only!r}")
    return kept
