"""Print the completion of a shell, made from the options themselves.

source <(segroi completion bash)          in ~/.bashrc
source <(segroi completion zsh)           in ~/.zshrc, after compinit
segroi completion fish > ~/.config/fish/completions/segroi.fish
"""

from __future__ import annotations

import argparse

from segroi.cli._completion import WRITERS
from segroi.utils.suggest import UsageError, unknown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("shell", metavar="SHELL", help="bash, zsh or fish")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    if args.shell not in WRITERS:
        raise UsageError(unknown("shell", args.shell, WRITERS))
    print(WRITERS[args.shell](), end="")
    return 0
