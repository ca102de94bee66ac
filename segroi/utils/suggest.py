"""Errors that a user can act on: unknown names get a "did you mean", missing paths say which."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UsageError(ValueError):
    """A mistake in what the user asked for; ``segroi`` prints its text without a traceback."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Text for a name that is not known, with the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}: {hint}"


def existing_file(path: str | Path, what: str) -> Path:
    """The path, or a UsageError that names it and its nearest neighbour."""
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"{what} {path} is a folder, a file is wanted")
    raise UsageError(f"{what} {path} does not exist{_near(path)}")


def existing_folder(path: str | Path, what: str) -> Path:
    """The path, or a UsageError that names it and its nearest neighbour."""
    path = Path(path)
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{what} {path} is a file, a folder is wanted")
    raise UsageError(f"{what} {path} does not exist{_near(path)}")


def _near(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    names = [entry.name for entry in parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f" (did you mean {parent / near[0]}?)" if near else f" ({parent} has no {path.name})"
