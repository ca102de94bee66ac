"""Weights files that say what they are, written so that a reader never sees half of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segroi.tv.models import build_model
from segroi.utils.non_finite import names_not_finite
from segroi.utils.safe_files import (
    UnreadableFile,
    atomic_write,
    digest_file,
    read_weights,
    write_digest,
)
from segroi.utils.suggest import UsageError

_FAMILY = "segroi-weights-"
FORMAT = f"{_FAMILY}1"


def save_checkpoint(
    path: str | Path,
    content: Mapping[str, Any],
    previous: Path | None = None,
    digest: bool = False,
) -> None:
    """Write a checkpoint atomically: whole, or not at all.

    Args:
        path: file to write or to replace.
        content: plain data and tensors; ``describe`` makes the part that tells the model.
        previous: where the file that is replaced goes.
        digest: write ``<path>.sha256`` too, which is checked whenever the file is read.

    Raises:
        UsageError: the disk is full or the folder cannot be written; the old file is still there.
    """
    digest_file(path).unlink(missing_ok=True)
    with atomic_write(path, previous=previous) as file:
        torch.save({"format": FORMAT, **content}, file)
    if digest:
        write_digest(path)


def describe(name: str, categories: list[dict], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a file needs so that ``load_model`` can rebuild its model."""
    return {"model": {"name": name, "args": dict(arguments)}, "categories": categories}


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; code in it is never run.

    Args:
        path: file that ``segroi train`` wrote, or what ``segroi weights --to`` made of it.

    Raises:
        UsageError: the file is missing, damaged, or none of segroi's.
    """
    content = read_weights(path)
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if isinstance(found, str) and found.startswith(_FAMILY) and found > FORMAT:
        raise UsageError(
            f"weights file {path} has the format {found}, this segroi reads {FORMAT}: install the "
            "segroi that wrote it"
        )
    if found != FORMAT:
        raise UsageError(
            f"weights file {path} was not written by segroi train (its format is {found!r}, "
            f"{FORMAT!r} is wanted); ImageNet weights go to --backbone-weights"
        )
    return content


def load_model(path: str | Path, **overrides: object) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild the model of a weights file, in eval mode.

    Args:
        path: file that ``segroi train`` wrote.
        overrides: arguments of the model to change, for example ``size`` or ``score_threshold``.

    Returns:
        The model, and the file's other content (``categories``, ``config``, ``provenance``, ...).
    """
    content = load_checkpoint(path)
    spec = content["model"]
    model = build_model(spec["name"], len(content["categories"]), **{**spec["args"], **overrides})
    load_state(model, content.pop("state_dict"), path)
    return model.eval(), content


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load weights into a model; differing keys or shapes are told one by one."""
    wanted = model.state_dict()
    lines = [f"  missing     {k}" for k in wanted if k not in state]
    lines += [f"  unexpected  {k}" for k in state if k not in wanted]
    lines += [
        f"  shape       {k}: file {tuple(state[k].shape)}, model {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    if lines:
        more = [f"  ... and {len(lines) - 12} more"] if len(lines) > 12 else []
        text = "\n".join([*lines[:12], *more])
        raise UsageError(f"weights file {path} does not fit the model:\n{text}")
    if bad := names_not_finite(state):
        raise UnreadableFile(
            f"weights file {path} holds numbers that are not finite, in {bad[0]} and "
            f"{len(bad) - 1} others"
        )
    model.load_state_dict(dict(state))
