"""The training loop of the torchvision host.

Order of the images, flips and the random numbers of an iteration are functions of (seed,
iteration), so a run that was killed at any moment goes on, from its last checkpoint, with the same
losses.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segroi.tv.checkpoint import describe, load_checkpoint, load_state, save_checkpoint
from segroi.tv.config import TrainConfig
from segroi.tv.data import CocoDataset, IterationSampler, Target, collate
from segroi.tv.models import build_model, find_model, model_arguments
from segroi.utils.optim import TFRMSprop
from segroi.utils.progress import Progress
from segroi.utils.provenance import provenance
from segroi.utils.suggest import UsageError

LAST = "checkpoint.pth"
FINAL = "model_final.pth"
METRICS = "metrics.jsonl"
POSTMORTEM = "postmortem.json"

Batch = tuple[list[Tensor], list[Target]]


class TrainingStopped(RuntimeError):
    """Training cannot go on; the text says why, what is kept and what to do."""


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
        self.dataset = CocoDataset(config.data, config.images)
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
        if resume and (self.output / LAST).exists():
            self._resume(self.output / LAST)
        self.origin = provenance()
        config.save(self.output / "config.yaml")
        (self.output / "provenance.json").write_text(json.dumps(self.origin, indent=2))

    def run(self) -> Path:
        """Train to the end; returns the weights file.

        Raises:
            TrainingStopped: a loss is not finite.
        """
        self.model.train()
        _keep_lines(self.output / METRICS, self.iteration)
        with (
            (self.output / METRICS).open("a", buffering=1) as log,
            Progress("train", self.config.iterations, self.iteration) as progress,
        ):
            started = time.perf_counter()
            batches = self._batches()
            for _ in range(self.iteration, self.config.iterations):
                losses = self.step(list(islice(batches, self.config.accumulate)))
                self.iteration += 1
                spent = time.perf_counter() - started
                log.write(json.dumps({"iteration": self.iteration, **losses, "time": spent}) + "\n")
                progress.advance(losses)
                if self.iteration % self.config.checkpoint_every == 0:
                    self.save(LAST)
        self.save(LAST)
        return self.save(FINAL, optimizer=False)

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One iteration: the losses, averaged over the batches, and the learning rate by name."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.iteration)
        lr = learning_rate(self.config, self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        values: dict[str, float] = {}
        for images, targets in batches:
            losses = self._add_gradients(images, targets, 1 / len(batches))
            for name, value in losses.items():
                values[name] = values.get(name, 0.0) + value / len(batches)
            if not math.isfinite(values["loss"]):
                raise self._stopped(values | {"lr": lr}, targets, "the loss is not finite")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        if not torch.isfinite(norm):
            seen = [target for _, targets in batches for target in targets]
            raise self._stopped(values | {"lr": lr}, seen, "the gradient is not finite")
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
        """Write a checkpoint into the run's folder."""
        content: dict[str, Any] = {
            **describe(self.config.model, self.dataset.categories, self.arguments),
            "state_dict": self.model.state_dict(),
            "iteration": self.iteration,
            "config": self.config.to_dict(),
            "provenance": self.origin,
        }
        if optimizer:
            content["optimizer"] = self.optimizer.state_dict()
        save_checkpoint(self.output / name, content)
        return self.output / name

    def _batches(self) -> Iterator[Batch]:
        config = self.config
        span = (self.iteration * config.accumulate, config.iterations * config.accumulate)
        sampler = IterationSampler(
            len(self.dataset), config.batch_size, span, config.seed, config.flip
        )
        return iter(
            DataLoader(
                self.dataset,
                batch_sampler=sampler,
                num_workers=config.workers,
                collate_fn=collate,
                generator=torch.Generator(),  # else the loader draws from the global one
            )
        )

    def _resume(self, path: Path) -> None:
        content = load_checkpoint(path)
        if content["model"] != describe(self.config.model, [], self.arguments)["model"]:
            raise UsageError(
                f"{path} holds {content['model']}, asked for is {self.config.model} with "
                f"{self.arguments}: use another --output, or the settings of its config.yaml"
            )
        if content["categories"] != self.dataset.categories:
            raise UsageError(f"{path} was trained on other categories than {self.config.data} has")
        load_state(self.model, content["state_dict"], path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.iteration = content["iteration"]

    def _stopped(
        self, losses: dict[str, float], targets: list[Target], why: str
    ) -> TrainingStopped:
        """Write the post-mortem and make the error that tells of it."""
        report = self.output / POSTMORTEM
        bad = [n for n, p in self.model.named_parameters() if not torch.isfinite(p).all()]
        content = {
            "why": why,
            "iteration": self.iteration,
            "losses": {k: v if math.isfinite(v) else str(v) for k, v in losses.items()},
            "images": [_image_summary(self.dataset, target) for target in targets],
            "parameters_not_finite": bad,
            "last_good_checkpoint": str(self.output / LAST) if self._has_checkpoint() else None,
        }
        report.write_text(json.dumps(content, indent=2))
        names = ", ".join(image["file"] for image in content["images"])
        kept = f"{self.output / LAST} is the last good checkpoint" if self._has_checkpoint() else ""
        return TrainingStopped(
            f"{why} at iteration {self.iteration} (learning rate {losses['lr']:.2g}, images "
            f"{names}). Try a learning rate of {losses['lr'] / 4:.2g} or a longer warm-up; "
            f"{report} holds the details. {kept}"
        )

    def _has_checkpoint(self) -> bool:
        return (self.output / LAST).exists()


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
    if (output / LAST).exists() and not resume:
        raise UsageError(f"{output} holds a run already: --resume goes on with it")
    return output


def _keep_lines(path: Path, count: int) -> None:
    """Cut the log of a run to its first ``count`` iterations."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)[:count]
        path.write_text("".join(lines))


def _image_summary(dataset: CocoDataset, target: Target) -> dict[str, Any]:
    boxes = target["boxes"]
    sides = (boxes[:, 2:] - boxes[:, :2]).flatten()
    return {
        "file": dataset.coco.imgs[int(target["image_id"])]["file_name"],
        "instances": len(boxes),
        "smallest_side_px": float(sides.min()) if len(boxes) else None,
        "largest_side_px": float(sides.max()) if len(boxes) else None,
    }
