"""Whole jobs on the torchvision host: train, evaluate and report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from segroi.tv.checkpoint import load_model
from segroi.tv.config import TrainConfig
from segroi.tv.data import CocoDataset
from segroi.tv.engine import FINAL, Trainer, pick_device
from segroi.tv.evaluate import detect_dataset
from segroi.tv.models import find_model
from segroi.tv.semantic import evaluate_semantic, semantic_sections
from segroi.tv.semantic_data import LabelDataset
from segroi.utils.data_check import refuse_broken_data
from segroi.utils.progress import track
from segroi.utils.provenance import provenance
from segroi.utils.run_folder import run_folder
from segroi.utils.run_record import EVALUATED, Evaluation, Truth, read_rows, record_evaluation
from segroi.utils.run_report import report_run

AnyDataset = CocoDataset | LabelDataset


def train(
    config: TrainConfig, resume: bool = False, before: bool = False, check: bool = True
) -> Path:
    """Train, evaluate where ``val_data`` is given, and write the run's report.

    Args:
        config: what to do.
        resume: go on with the run in ``config.output``.
        before: evaluate the untrained model too.
        check: look quickly for what is wrong with the data first.

    Returns:
        The weights file.

    Raises:
        UsageError: the configuration or the data cannot be used, or a live run has the folder.
        TrainingStopped: training began and cannot go on.
    """
    config.check()
    if check and find_model(config.model).dataset is CocoDataset:
        refuse_broken_data(config.data, config.images)
        if config.val_data:
            refuse_broken_data(config.val_data, config.val_images or config.images)
    with run_folder(config.output):
        return _train(config, resume, before)


def _train(config: TrainConfig, resume: bool, before: bool) -> Path:
    trainer = Trainer(config, resume)
    validation = _validation(config, trainer.dataset)
    first = trainer.output / "before"
    run = partial(_evaluate, trainer.model, validation, config.model, workers=config.workers)
    if before and validation is not None and not (first / EVALUATED).exists():
        run(first, "before")
    weights = trainer.run()
    if validation is not None:
        run(trainer.output, "evaluate")
    title = f"{config.model} on {Path(config.data).parent.name}/{Path(config.data).name}"
    _report(trainer.output, title, read_rows(trainer.output), trainer.model, validation)
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
        data: COCO-format annotations, or the folder of label maps.
        images: folder of the images.
        output: folder to write.
        device: "cpu", "cuda", ...; default: the GPU where there is one.
        overrides: arguments of the model to change, for example ``size``.
    """
    model, info = load_model(weights, **overrides)
    model.to(pick_device(device))
    name = info["model"]["name"]
    dataset = find_model(name).dataset(data, images, info["categories"])
    numbers = _evaluate(model, dataset, name, Path(output), "evaluate")
    rows = read_rows(Path(weights).parent)
    _report(Path(output), f"{name} on {Path(data).name}", rows, model, dataset)
    return numbers


def weights_of(path: str | Path) -> Path:
    """The weights file itself, or the final weights of a run's folder."""
    path = Path(path)
    return path / FINAL if path.is_dir() else path


def _validation(config: TrainConfig, dataset: AnyDataset) -> AnyDataset | None:
    if not config.val_data:
        return None
    images = config.val_images or config.images
    return type(dataset)(config.val_data, images, dataset.categories)


def _evaluate(
    model: nn.Module, dataset: AnyDataset, name: str, output: Path, title: str, workers: int = 0
) -> Evaluation:
    if isinstance(dataset, LabelDataset):
        return evaluate_semantic(model, dataset, output, title, workers)
    torch.manual_seed(0)  # GRoIE's random row draws levels at test too
    kinds: Sequence[str] = find_model(name).kinds
    started = time.perf_counter()
    results = detect_dataset(model, dataset, workers=workers, track=partial(track, title=title))
    seconds = time.perf_counter() - started
    return record_evaluation(output, _truth(dataset), results, kinds, seconds)


def _truth(dataset: CocoDataset) -> Truth:
    return Truth(dataset.coco, dataset.folder, dataset.file)


def _report(
    output: Path,
    title: str,
    rows: Sequence[dict[str, float]],
    model: nn.Module,
    dataset: AnyDataset | None,
) -> None:
    semantic = isinstance(dataset, LabelDataset)
    more = semantic_sections(model, dataset, output) if semantic else None
    truth = _truth(dataset) if isinstance(dataset, CocoDataset) else None
    report_run(output, title, rows, truth, provenance(), more=more)
