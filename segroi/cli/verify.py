"""Prove what the operators promise, on this machine.

segroi verify badinputs --compare torchvision   hostile inputs, each in a process of its own
segroi verify conformance                       results beside those of the peers that are installed
"""

from __future__ import annotations

import argparse

from segroi.verify import badinputs, conformance

COMMANDS = {"badinputs": badinputs, "conformance": conformance}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, module in COMMANDS.items():
        action = actions.add_parser(name, help=module.__doc__.splitlines()[0])
        module.add_arguments(action)
        action.set_defaults(run=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the check; 1 where a promise is broken."""
    return args.run(args)
