"""``python -m segroi.verify {badinputs,conformance}``: exits non-zero when a promise is broken."""

from __future__ import annotations

import argparse
import sys

from segroi.verify import badinputs, conformance

_COMMANDS = {"badinputs": badinputs, "conformance": conformance}


def main(argv: list[str] | None = None) -> int:
    """Run one of the checks."""
    parser = argparse.ArgumentParser(prog="python -m segroi.verify", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in _COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    args = parser.parse_args(argv)
    return _COMMANDS[args.command].run(args)


if __name__ == "__main__":
    sys.exit(main())
