"""Completion scripts of shells, from the parsers of the subcommands."""

from __future__ import annotations

import argparse
import importlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Command:
    """A subcommand or one of its actions: what may follow it."""

    words: tuple[str, ...]  # how to get there, without "segroi"
    help: str
    actions: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)  # options without a value, and their help
    values: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # help, choices


def commands() -> list[Command]:
    """Every subcommand and action."""
    from segroi.cli.main import subcommands

    found = []
    for name, text in subcommands().items():
        module = importlib.import_module(f"segroi.cli.{name.replace('-', '_')}")
        parser = argparse.ArgumentParser(add_help=True)
        module.add_arguments(parser)
        found += _walk(parser, (name,), text)
    return found


def _walk(parser: argparse.ArgumentParser, words: tuple[str, ...], text: str) -> Iterator[Command]:
    command = Command(words, text)
    below: list[Command] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            command.actions += list(action.choices)
            for name, child in action.choices.items():
                below += _walk(child, (*words, name), helps.get(name, ""))
        for option in action.option_strings:
            text = "" if action.help == argparse.SUPPRESS else (action.help or "")
            text = text.replace("%(default)s", str(action.default))
            if action.nargs == 0:
                command.flags[option] = text
            else:
                command.values[option] = text, tuple(map(str, action.choices or ()))
    if "--model" in command.values:
        command.values["--model"] = command.values["--model"][0], _models()
    yield command
    yield from below


def _models() -> tuple[str, ...]:
    from segroi.tv.models import MODELS

    return tuple(MODELS)


def bash() -> str:
    """A function that finds the subcommand, then offers its options and their choices."""
    every = commands()
    paths = "|".join(shlex.quote(" ".join(c.words)) for c in every)
    words, values = [], []
    top = [c.words[0] for c in every if len(c.words) == 1]
    for command in every:
        path = shlex.quote(" ".join(command.words))
        offered = " ".join([*command.actions, *command.flags, *command.values])
        words.append(f"    {path}) offered={shlex.quote(offered)} ;;")
        for option, (_, choices) in command.values.items():
            case = shlex.quote(f"{' '.join(command.words)}:{option}")
            values.append(f"    {case}) offered={shlex.quote(' '.join(choices))}; value=1 ;;")
    return "\n".join(
        [
            "_segroi() {",
            '  local path="" offered="" value="" word next',
            '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '    next="${path:+$path }$word"',
            f'    case "$next" in {paths}) path="$next" ;; esac',
            "  done",
            '  case "$path:${COMP_WORDS[COMP_CWORD-1]}" in',
            *values,
            "  esac",
            '  [ -n "$value" ] || case "$path" in',
            f'    "") offered={shlex.quote(" ".join(top))} ;;',
            *words,
            "  esac",
            '  COMPREPLY=($(compgen -W "$offered" -- "${COMP_WORDS[COMP_CWORD]}"))',
            "}",
            "complete -o default -F _segroi segroi",
            "",
        ]
    )


def zsh() -> str:
    """That of bash, which zsh runs by ``bashcompinit``."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash()}"


def fish() -> str:
    """One line for each subcommand, action and option."""
    lines = []
    for command in commands():
        *before, name = command.words
        seen = "__fish_use_subcommand" if not before else _seen(tuple(before))
        lines.append(_fish_line(seen, f"-f -a {name}", command.help))
        where = _seen(command.words)
        for option, text in command.flags.items():
            lines.append(_fish_line(where, _fish_option(option), text))
        for option, (text, choices) in command.values.items():
            offered = f" -x -a {shlex.quote(' '.join(choices))}" if choices else " -r"
            lines.append(_fish_line(where, _fish_option(option) + offered, text))
    return "\n".join([*lines, ""])


def _seen(words: tuple[str, ...]) -> str:
    return "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)


def _fish_option(option: str) -> str:
    return f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"


def _fish_line(condition: str, what: str, text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"complete -c segroi -n '{condition}' {what} -d '{quoted}'"


WRITERS = {"bash": bash, "zsh": zsh, "fish": fish}
