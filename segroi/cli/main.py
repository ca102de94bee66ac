"""The ``segroi`` command: a subcommand is a file of this folder, imported when it is asked for."""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from segroi.utils.suggest import UsageError, unknown

# Modules of this folder that are no subcommands.
_SUPPORT = {"__init__", "main"}


def subcommands() -> dict[str, str]:
    """Every subcommand with the first line of its module's docstring; imports nothing."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in _SUPPORT and not path.stem.startswith("_"):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[path.stem.replace("_", "-")] = text.splitlines()[0] if text else ""
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``segroi`` command.

    Args:
        argv: the words after ``segroi``; default: those of this process.

    Returns:
        The exit status: 0 done, 1 the work failed or found something, 2 wrong use.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    known = subcommands()
    if not words or words[0] in ("-h", "--help", "help"):
        _print_help(known)
        return 0 if words else 2
    if words[0] in ("-V", "--version", "version"):
        _print_version()
        return 0
    if words[0] not in known:
        return _complain(unknown("subcommand", words[0], known))
    module = importlib.import_module(f"segroi.cli.{words[0].replace('-', '_')}")
    parser = _Parser(f"segroi {words[0]}", description=module.__doc__)
    module.add_arguments(parser)
    try:
        return module.run(parser.parse_args(words[1:]))
    except _ParserError as error:
        return _complain(_unknown_option(words[1:], parser) or str(error))
    except UsageError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return _complain("stopped", 130)


class _ParserError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are exceptions."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs |= {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise _ParserError(f"{message} ({self.prog} --help tells more)")


def _unknown_option(words: list[str], parser: argparse.ArgumentParser) -> str:
    """Text about the first option that does not exist, or ''."""
    known = _options(parser)
    strays = [word.split("=")[0] for word in words if word.startswith("--")]
    return next((unknown("option", word, known) for word in strays if word not in known), "")


def _options(parser: argparse.ArgumentParser) -> set[str]:
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options.update(*(_options(child) for child in action.choices.values()))
    return options


def _complain(text: str, status: int = 2) -> int:
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]segroi:[/] {escape(text)}")
    return status


def _print_help(known: dict[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    for name, text in known.items():
        table.add_row(f"[bold cyan]{name}[/]", escape(text))
    console = Console(highlight=False)
    console.print(
        "[bold]segroi[/] SUBCOMMAND \\[options]    (segroi SUBCOMMAND --help tells more)\n"
    )
    console.print(table)


def _print_version() -> None:
    from segroi import __version__

    print(f"segroi {__version__}")


if __name__ == "__main__":
    raise SystemExit(main())
