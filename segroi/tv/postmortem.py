"""Why a training stopped: what is kept of it, and how the last batch is run once more."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segroi.tv.checkpoint import load_checkpoint, save_checkpoint
from segroi.tv.models import build_model
from segroi.utils.non_finite import first_non_finite, names_not_finite
from segroi.utils.suggest import UsageError

if TYPE_CHECKING:
    from segroi.tv.engine import Batch, Trainer

POSTMORTEM = "postmortem.json"
REPLAY = "postmortem.pth"


class TrainingStopped(RuntimeError):
    """Training cannot go on; the text says why, what is kept and what to do.

    Args:
        text: all of that.
        status: exit status of the process.
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def step_seed(seed: int, iteration: int) -> int:
    """Seed of the random numbers of an iteration."""
    return seed * 1_000_003 + iteration


def not_finite(
    trainer: Trainer, losses: Mapping[str, float], batches: Sequence[Batch], why: str
) -> TrainingStopped:
    """Write the post-mortem of an iteration, and make the error that tells of it.

    ``postmortem.json`` is for people; ``postmortem.pth`` holds the weights before the iteration and
    its batches, for :func:`replay`.

    Args:
        trainer: the run; its optimizer has not taken the step.
        losses: losses and learning rate of the iteration by name.
        batches: what it was given.
        why: what is not finite.
    """
    grads = {n: p.grad for n, p in trainer.model.named_parameters()}
    bad_gradients = names_not_finite(grads)
    report, stored = trainer.output / POSTMORTEM, trainer.output / REPLAY
    seed = step_seed(trainer.config.seed, trainer.iteration)
    first = _search(trainer.model, batches, seed, trainer.device)
    kept, command = trainer.last_checkpoint(), f"segroi train --replay {stored}"
    content = {
        "why": why,
        "iteration": trainer.iteration,
        "losses": {k: v if math.isfinite(v) else str(v) for k, v in losses.items()},
        "first_not_finite": first,
        "images": [trainer.dataset.summary(t) for _, targets in batches for t in targets],
        "parameters_not_finite": names_not_finite(dict(trainer.model.named_parameters())),
        "gradients_not_finite": bad_gradients,
        "last_good_checkpoint": str(kept) if kept else None,
        "reproduce": command,
    }
    once_more = f"; once more: {command}"
    try:
        report.write_text(json.dumps(content, indent=2))
        plain = [[images, targets] for images, targets in batches]
        save_checkpoint(stored, trainer.content() | {"seed": seed, "batches": plain})
    except (OSError, UsageError) as error:  # the reason for stopping matters more
        once_more = f" ({error})"
    names = ", ".join(image["file"] for image in content["images"])
    lr = losses["lr"]
    return TrainingStopped(
        f"{why} at iteration {trainer.iteration} (learning rate {lr:.2g}, images {names}). "
        f"{_verdict(first)} Try a learning rate of {lr / 4:.2g} or a longer warm-up; {report} "
        f"holds the details{once_more}. {f'{kept} is the last good checkpoint' if kept else ''}"
    )


def replay(path: str | Path, device: torch.device | None = None) -> str:
    """Run the last batches of a post-mortem once more and tell where the number comes from.

    Args:
        path: the ``postmortem.pth`` of a run.
        device: where to run; default: the CPU.

    Raises:
        UsageError: the file is none.
    """
    content = load_checkpoint(path)
    if "batches" not in content:
        raise UsageError(f"{path} is no post-mortem")
    spec, device = content["model"], device or torch.device("cpu")
    model = build_model(spec["name"], len(content["categories"]), **spec["args"])
    model.load_state_dict(content["state_dict"])
    model.to(device).train()
    return _verdict(_search(model, content["batches"], content["seed"], device))


def explained(error: Exception, trainer: Trainer) -> TrainingStopped | None:
    """What to tell of an error of the machine: memory, readers of images, disk; None of others."""
    config, text = trainer.config, str(error).partition("\n")[0]
    why = ""
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        why = (
            f"out of memory on {trainer.device}: {text}. Try --batch-size "
            f"{max(config.batch_size // 2, 1)} with accumulate={2 * config.accumulate}, or a "
            "smaller --size"
        )
    elif "DataLoader worker" in text:
        why = (
            f"a process that reads images ended ({text}): mostly the system was out of memory. "
            f"Try --workers {config.workers // 2}"
        )
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        why = f"{trainer.output} cannot be written: {text}"
    if not why:
        return None
    kept = trainer.last_checkpoint()
    go_on = f" {kept} is kept, --resume goes on with it" if kept else ""
    return TrainingStopped(f"at iteration {trainer.iteration}, {why}.{go_on}")


def _search(
    model: nn.Module, batches: Sequence[Batch], seed: int, device: torch.device
) -> dict[str, Any] | None:
    """The first module, or else the first parameter's gradient, that is not finite."""
    losses: dict[str, Tensor] = {}

    def run() -> None:
        torch.manual_seed(seed)
        model.zero_grad()
        for images, targets in batches:
            moved = [{k: v.to(device) for k, v in target.items()} for target in targets]
            losses.update(model([image.to(device) for image in images], moved))
            torch.stack(list(losses.values())).sum().backward()

    found = first_non_finite(model, run)
    if found or not losses:
        return found
    if bad := names_not_finite(losses):
        return {"loss": bad[0]}
    bad = names_not_finite({n: p.grad for n, p in model.named_parameters()})
    return {"gradient": bad[-1]} if bad else None


def _verdict(first: Mapping[str, Any] | None) -> str:
    if first is None:
        return "Run once more, every output is finite."
    if "loss" in first:
        return f"Every module's output is finite, {first['loss']} is not."
    if "gradient" in first:
        return f"Every output is finite; of the gradients, that of {first['gradient']} is not."
    whose = "its inputs are finite" if first["inputs_finite"] else "its inputs are not either"
    if not first["parameters_finite"]:
        whose = "its weights are not either"
    name = f"{first['module']} ({first['kind']})"
    return f"The first output that is not finite is that of {name}: {whose}."
