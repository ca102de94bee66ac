#!/usr/bin/env python
"""Detectron2's training script for lazy (Python) configs, with segroi registered.

All of Detectron2's options (--num-gpus, --resume, --eval-only, path.key=value ...), and --data-json
for your own COCO-format data. Without a GPU it runs on the CPU.

    python scripts/lazyconfig_train_net.py --config-file configs/quick/mask_rcnn_groie_digits.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import (
    AMPTrainer,
    SimpleTrainer,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format, verify_results
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from segroi.d2.data import apply_data_arguments
from segroi.d2.launch import invoke
from segroi.d2.predict import save_categories
from segroi.d2.report import TimedLoader, write_report


def do_test(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Evaluate ``model`` on ``cfg.dataloader.test``."""
    loader = instantiate(cfg.dataloader.test)  # fills the metadata that the evaluator reads
    loader = TimedLoader(loader, cfg.train.output_dir)
    results = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
    print_csv_format(results)
    return results


def do_train(args: argparse.Namespace, cfg: DictConfig) -> dict[str, Any]:
    """Train ``cfg.model``; the parts of ``cfg`` are those of Detectron2's ``configs/common``.

    Returns:
        The results of the evaluation after the last iteration.
    """
    model = instantiate(cfg.model).to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    if comm.is_main_process():
        save_categories(cfg.train.output_dir, instantiate(cfg.dataloader.train.dataset.names))
    model = create_ddp_model(model, **cfg.train.ddp)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(model, loader, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict[str, Any] = {}

    def evaluate() -> dict[str, Any]:
        results.update(do_test(cfg, model))
        return results

    evaluation = hooks.EvalHook(cfg.train.eval_period, evaluate)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            *_main_process_hooks(cfg, checkpointer, evaluation),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    resumed = args.resume and checkpointer.has_checkpoint()
    trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    return results


def _main_process_hooks(
    cfg: DictConfig, checkpointer: DetectionCheckpointer, evaluation: hooks.EvalHook
) -> list[hooks.HookBase]:
    """Checkpoints before and logs after the evaluation, which every process takes part in."""
    if not comm.is_main_process():
        return [evaluation]
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
    return [
        hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
        evaluation,
        hooks.PeriodicWriter(writers, period=cfg.train.log_period),
    ]


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate, or evaluate only, and write a report.

    Where ``cfg.TEST.EXPECTED_RESULTS`` is given, the results are checked against it.
    """
    cfg = LazyConfig.load(args.config_file)
    if not torch.cuda.is_available():
        cfg.train.device = "cpu"
    apply_data_arguments(cfg, args)
    cfg = LazyConfig.apply_overrides(cfg, args.opts)
    default_setup(cfg, args)
    if args.eval_only:
        model = create_ddp_model(instantiate(cfg.model).to(cfg.train.device))
        DetectionCheckpointer(model).load(cfg.train.init_checkpoint)
        results = do_test(cfg, model)
    else:
        results = do_train(args, cfg)
    dataset = instantiate(cfg.dataloader.test.dataset.names)
    write_report(cfg.train.output_dir, dataset, results, Path(args.config_file).stem)
    if comm.is_main_process() and "TEST" in cfg:
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    invoke(main)
