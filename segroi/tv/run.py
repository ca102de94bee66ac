"""Whole jobs on the torchvision host: train, evaluate and report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from segroi.tv.checkpoint import load_model
from segroi.tv.config import TrainConfig
from segroi.tv.data import CocoDataset
from segroi.tv.engine import FINAL, METRICS, Trainer, pick_device
from segroi.tv.evaluate import evaluate
from segroi.tv.models import find_model
from segroi.utils.progress import track
from segroi.utils.provenance import provenance
from segroi.utils.run_report import DETECTIONS, EVALUATION, Evaluation, report_run


def train(config: TrainConfig, resume: bool = False, before: bool = False) -> Path:
    """Train, evaluate where ``val_data`` is given, and write the run's report.

    Args:
        config: what to do.
        resume: go on with the run in ``config.output``.
        before: evaluate the untrained model too.

    Returns:
        The weights file.
    """
    trainer = Trainer(config, resume)
    validation = _validation(config, trainer.dataset)
    first = trainer.output / "before"
    if before and validation is not None and not (first / EVALUATION).exists():
        _evaluate(trainer.model, validation, config.model, first, "before", config.workers)
    weights = trainer.run()
    if validation is not None:
        _evaluate(
            trainer.model, validation, config.model, trainer.output, "evaluate", config.workers
        )
    report_run(
        trainer.output,
        f"{config.model} on {Path(config.data).parent.name}/{Path(config.data).name}",
        read_rows(trainer.output / METRICS),
        validation and (validation.coco, validation.folder),
        provenance(),
    )
    return weights


def evaluate_file(
    weights: str | Path,
    data: str | Path,
    images: str | Path,
    output: str | Path,
    device: str = "",
    **overrides: object,
) -> Evaluation:
    """Evaluate a weights file on a dataset and write numbers, detections and a report.

    Args:
        weights: file that training wrote.
        data: COCO-format annotations.
        images: folder of the images.
        output: folder to write.
        device: "cpu", "cuda", ...; default: the GPU where there is one.
        overrides: arguments of the model to change, for example ``size``.
    """
    model, info = load_model(weights, **overrides)
    model.to(pick_device(device))
    dataset = CocoDataset(data, images, info["categories"])
    numbers = _evaluate(model, dataset, info["model"]["name"], Path(output), "evaluate")
    title = f"{info['model']['name']} on {Path(data).name}"
    rows = read_rows(Path(weights).parent / METRICS)
    report_run(output, title, rows, (dataset.coco, dataset.folder), provenance())
    return numbers


def read_rows(path: Path) -> list[dict[str, float]]:
    """The logged iterations of a run; none where there is no log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def weights_of(path: str | Path) -> Path:
    """The weights file itself, or the final weights of a run's folder."""
    path = Path(path)
    return path / FINAL if path.is_dir() else path


def _validation(config: TrainConfig, dataset: CocoDataset) -> CocoDataset | None:
    if not config.val_data:
        return None
    return CocoDataset(config.val_data, config.val_images or config.images, dataset.categories)


def _evaluate(
    model: nn.Module,
    dataset: CocoDataset,
    name: str,
    output: Path,
    title: str,
    workers: int = 0,
) -> Evaluation:
    torch.manual_seed(0)  # GRoIE's random row draws levels at test too
    kinds: Sequence[str] = find_model(name).kinds
    bar = partial(track, title=title)
    numbers, results = evaluate(model, dataset, kinds, workers=workers, track=bar)
    output.mkdir(parents=True, exist_ok=True)
    (output / EVALUATION).write_text(json.dumps(numbers, indent=2))
    (output / DETECTIONS).write_text(json.dumps(results))
    return numbers
