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
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_setup, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format, verify_results
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from segroi.d2.accumulation import build_step_trainer
from segroi.d2.checkpoint import SafeCheckpointer
from segroi.d2.data import apply_data_arguments
from segroi.d2.launch import invoke
from segroi.d2.poolers import with_fast_poolers
from segroi.d2.predict import save_categories
from segroi.d2.report import TimedLoader, write_report
from segroi.d2.survival import StopOnSigterm, refuse_live_folder, surviving_run
from segroi.d2.trust import load_lazy_config


def build_model(cfg: DictConfig) -> nn.Module:
    """``cfg.model``; segroi pools in it unless ``train.replace_poolers`` is False."""
    model = instantiate(cfg.model).to(cfg.train.device)
    return with_fast_poolers(model, cfg.train.get("replace_poolers", True))


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
    model = build_model(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    if comm.is_main_process():
        save_categories(cfg.train.output_dir, instantiate(cfg.dataloader.train.dataset.names))
    model = create_ddp_model(model, **cfg.train.ddp)
    batches = cfg.train.get("accumulate", 1)
    trainer = build_step_trainer(model, loader, optimizer, batches, cfg.train.amp.enabled)
    checkpointer = SafeCheckpointer(model, cfg.train.output_dir, trainer=trainer, **_reading(args))
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
            StopOnSigterm(checkpointer),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    resumed = args.resume and checkpointer.has_checkpoint()
    with surviving_run(model, cfg.train.output_dir):
        trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    return results


def _reading(args: argparse.Namespace) -> dict[str, Any]:
    """How weights files are read, of :class:`SafeCheckpointer`."""
    return {"trust": args.trust_weights, "sha256": args.weights_sha256}


def _main_process_hooks(
    cfg: DictConfig, checkpointer: SafeCheckpointer, evaluation: hooks.EvalHook
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
    cfg = load_lazy_config(args.config_file, args.trust_config)
    if not torch.cuda.is_available():
        cfg.train.device, cfg.train.ddp.device_ids = "cpu", None
    apply_data_arguments(cfg, args)
    cfg = LazyConfig.apply_overrides(cfg, args.opts)
    if not args.eval_only:
        refuse_live_folder(cfg.train.output_dir)
    default_setup(cfg, args)
    if args.eval_only:
        model = create_ddp_model(build_model(cfg), **cfg.train.ddp)
        checkpointer = SafeCheckpointer(model, **_reading(args))
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
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
