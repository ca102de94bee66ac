"""The training loop of the torchvision host.

Order of the images, flips and the random numbers of an iteration are functions of (seed,
iteration), so a run that was killed at any moment goes on, from its last checkpoint, with the same
losses.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segroi.tv.checkpoint import describe, load_checkpoint, load_state, save_checkpoint
from segroi.tv.config import TrainConfig
from segroi.tv.data import IterationSampler, Target, collate
from segroi.tv.models import build_model, find_model, model_arguments
from segroi.tv.postmortem import TrainingStopped, explained, not_finite, step_seed
from segroi.utils.non_finite import names_not_finite
from segroi.utils.optim import TFRMSprop
from segroi.utils.progress import Progress, say
from segroi.utils.provenance import write_provenance
from segroi.utils.safe_files import UnreadableFile, atomic_write
from segroi.utils.stop_signal import STATUS, StopSignal, leave_sigterm_to_parent
from segroi.utils.suggest import UsageError
from segroi.utils.tensorboard import scalar_events

LAST = "checkpoint.pth"
FINAL = "model_final.pth"
METRICS = "metrics.jsonl"
PREVIOUS = "checkpoint.previous.pth"

# Settings that may change between the parts of a run without changing what it computes.
_FREE = ("workers", "output", "device", "checkpoint_every", "val_data", "val_images")

Batch = tuple[list[Tensor], list[Target]]


class Trainer:
    """One training run in one folder.

    Args:
        config: what to do.
        resume: go on from the folder's last checkpoint, where there is one.
    """

    def __init__(self, config: TrainConfig, resume: bool = False) -> None:
        config.check()
        self.config = config
        self.output = _output_folder(config.output, resume)
        self.device = pick_device(config.device)
        self.dataset = find_model(config.model).dataset(config.data, config.images)
        if self.dataset.annotated() == 0:
            raise UsageError(f"{config.data}: no instance to learn from (all empty or crowd)")
        torch.manual_seed(config.seed)
        self.arguments = _resolved(config)
        self.model = build_model(config.model, len(self.dataset.categories), **self.arguments)
        if config.backbone_weights:
            load = find_model(config.model).load_backbone
            load(self.model.backbone, config.backbone_weights)
        self.model.to(self.device)
        self.optimizer = build_optimizer(self.model, config)
        self.iteration = 0
        if resume and self.last_checkpoint():
            self._resume()
        config.save(self.output / "config.yaml")
        self.origin = write_provenance(self.output)

    def run(self) -> Path:
        """Train to the end; returns the weights file.

        Raises:
            TrainingStopped: a loss is not finite, the machine has no memory or disk left, or
                SIGTERM came; in the last case a checkpoint of this very iteration is kept.
        """
        self.model.train()
        try:
            self._run()
            return self.save(FINAL, optimizer=False)
        except (OSError, RuntimeError) as error:
            told = None if isinstance(error, TrainingStopped) else explained(error, self)
            if told is None:
                raise
            raise told from error

    def _run(self) -> None:
        _keep_lines(self.output / METRICS, self.iteration)
        with (
            StopSignal() as stop,
            (self.output / METRICS).open("a", buffering=1) as log,
            Progress("train", self.config.iterations, self.iteration) as progress,
            scalar_events(self.output, self.iteration) as note,
            closing(self._batches()) as batches,  # its processes end before ours does
        ):
            started = time.perf_counter()
            for _ in range(self.iteration, self.config.iterations):
                losses = self.step(list(islice(batches, self.config.accumulate)))
                self.iteration += 1
                spent = time.perf_counter() - started
                log.write(json.dumps({"iteration": self.iteration, **losses, "time": spent}) + "\n")
                progress.advance(losses)
                note(self.iteration, losses)
                if self._checkpoint_due() or stop.received:
                    self.save(LAST)
                if stop.received:
                    raise TrainingStopped(
                        f"SIGTERM after iteration {self.iteration}; --resume goes on there", STATUS
                    )

    def _checkpoint_due(self) -> bool:
        last = self.iteration == self.config.iterations
        return last or self.iteration % self.config.checkpoint_every == 0

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One iteration: the losses, averaged over the batches, and the learning rate by name."""
        torch.manual_seed(step_seed(self.config.seed, self.iteration))
        lr = learning_rate(self.config, self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        values: dict[str, float] = {}
        for count, (images, targets) in enumerate(batches, start=1):
            losses = self._add_gradients(images, targets, 1 / len(batches))
            for name, value in losses.items():
                values[name] = values.get(name, 0.0) + value / len(batches)
            if not math.isfinite(values["loss"]):
                seen = batches[:count]
                raise not_finite(self, values | {"lr": lr}, seen, "the loss is not finite")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        if not torch.isfinite(norm):
            raise not_finite(self, values | {"lr": lr}, batches, "the gradient is not finite")
        self.optimizer.step()
        return values | {"lr": lr}

    def _add_gradients(
        self, images: list[Tensor], targets: list[Target], weight: float
    ) -> dict[str, float]:
        """Add the weighted gradients of a batch; returns its losses."""
        moved = [{k: v.to(self.device) for k, v in target.items()} for target in targets]
        losses = self.model([image.to(self.device) for image in images], moved)
        total = torch.stack(list(losses.values())).sum()
        if torch.isfinite(total):
            (weight * total).backward()
        return {"loss": total.item()} | {k: v.item() for k, v in losses.items()}

    def save(self, name: str, optimizer: bool = True) -> Path:
        """Write a checkpoint into the run's folder; the one before is kept too.

        Raises:
            TrainingStopped: a weight is not finite; the checkpoints stay as they are.
            UsageError: the file cannot be written; the old one is still there.
        """
        if bad := names_not_finite(self.model.state_dict()):
            kept = self.last_checkpoint()
            raise TrainingStopped(
                f"the weights are not finite after iteration {self.iteration} ({bad[0]} and "
                f"{len(bad) - 1} others): try a lower learning rate or a longer warm-up. "
                f"{f'{kept} is the last good checkpoint' if kept else ''}"
            )
        content = self.content()
        if optimizer:
            content["optimizer"] = self.optimizer.state_dict()
        path = self.output / name
        if name == LAST:
            save_checkpoint(path, content, previous=self.output / PREVIOUS)
        else:
            save_checkpoint(path, content, digest=True)
        return path

    def content(self) -> dict[str, Any]:
        """What a file needs to rebuild the model, and where it comes from."""
        return {
            **describe(self.config.model, self.dataset.categories, self.arguments),
            "state_dict": self.model.state_dict(),
            "iteration": self.iteration,
            "config": self.config.to_dict(),
            "provenance": self.origin,
        }

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint of the run's folder."""
        return next(iter(_checkpoints(self.output)), None)

    def _batches(self) -> Generator[Batch, None, None]:
        config = self.config
        span = (self.iteration * config.accumulate, config.iterations * config.accumulate)
        sampler = IterationSampler(
            len(self.dataset), config.batch_size, span, config.seed, config.flip
        )
        yield from DataLoader(
            self.dataset,
            batch_sampler=sampler,
            num_workers=config.workers,
            collate_fn=collate,
            worker_init_fn=leave_sigterm_to_parent,
            generator=torch.Generator(),  # else the loader draws from the global one
        )

    def _resume(self) -> None:
        """Go on from the newest checkpoint that can be read."""
        unreadable = []
        for path in _checkpoints(self.output):
            try:
                self._take_over(path, load_checkpoint(path))
            except UnreadableFile as error:
                unreadable.append(str(error))
                continue
            for text in unreadable:
                say(f"{text}; going on from {path}")
            return
        raise UsageError(f"{'; '.join(unreadable)}: start anew in another --output")

    def _take_over(self, path: Path, content: dict[str, Any]) -> None:
        if content["model"] != describe(self.config.model, [], self.arguments)["model"]:
            raise UsageError(
                f"{path} holds {content['model']}, asked for is {self.config.model} with "
                f"{self.arguments}: use another --output, or the settings of its config.yaml"
            )
        if content["categories"] != self.dataset.categories:
            raise UsageError(f"{path} was trained on other categories than {self.config.data} has")
        was = content["config"].get("optimizer")
        if was != self.config.optimizer or "optimizer" not in content:
            raise UsageError(
                f"{path} has no state for the optimizer {self.config.optimizer} (its own is {was})"
            )
        load_state(self.model, content["state_dict"], path)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: the optimizer's state is damaged: {error}") from error
        self.iteration = content["iteration"]
        changed = [k for k, v in self.config.to_dict().items() if content["config"].get(k) != v]
        if changed := [name for name in changed if name not in _FREE]:
            say(f"resumed with other settings than before: {', '.join(changed)}")


def pick_device(name: str = "") -> torch.device:
    """The device of that name; without one, the GPU where there is one."""
    try:
        return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"device {name!r} is none that torch knows (cpu, cuda, cuda:1)") from error


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Linear warm-up, then cosine, steps, exponential (a staircase) or constant."""
    warm = min(1.0, (iteration + 1) / max(config.warmup, 1))
    progress = iteration / config.iterations
    shape = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "steps": 0.1 ** sum(progress >= step for step in config.steps),
        "exponential": config.decay_rate ** (iteration // config.decay_every),
        "constant": 1.0,
    }[config.schedule]
    return config.peak_lr() * warm * shape


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer; norms and biases are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.peak_lr())
    if config.optimizer == "tf_rmsprop":
        return TFRMSprop(
            groups, config.peak_lr(), config.rmsprop_decay, config.momentum, config.rmsprop_eps
        )
    return torch.optim.SGD(groups, config.peak_lr(), config.momentum)


def _resolved(config: TrainConfig) -> dict[str, Any]:
    """The model's arguments; with pretrained weights the backbone's norms and stem are frozen."""
    given = dict(config.model_args)
    if config.backbone_weights:
        for name, value in (("norm", "frozen"), ("frozen_stages", 1)):
            if name in model_arguments(config.model):
                given.setdefault(name, value)
    return given


def _output_folder(path: str, resume: bool) -> Path:
    output = Path(path)
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"output folder {output} cannot be written: {error}") from error
    if _checkpoints(output) and not resume:
        raise UsageError(f"{output} holds a run already: --resume goes on with it")
    return output


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    return [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]


def _keep_lines(path: Path, count: int) -> None:
    """Cut the log of a run to its first ``count`` iterations."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)[:count]
        with atomic_write(path, "w") as file:
            file.writelines(lines)
