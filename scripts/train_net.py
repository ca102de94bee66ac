#!/usr/bin/env python
"""Detectron2's training script for yaml configs, with segroi's models and datasets registered.

All of Detectron2's options (--num-gpus, --resume, --eval-only, KEY VALUE ...), and --data-json for
your own COCO-format data. Without a GPU it runs on the CPU.

    python scripts/train_net.py --config-file configs/d2/mask_rcnn_groie_R_50_FPN_1x.yaml
"""

from __future__ import annotations

import argparse
import weakref
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, default_setup
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from torch import nn

from segroi.d2 import load_config
from segroi.d2.accumulation import build_step_trainer
from segroi.d2.checkpoint import SafeCheckpointer
from segroi.d2.data import apply_data_arguments
from segroi.d2.evaluation import build_evaluator
from segroi.d2.launch import invoke
from segroi.d2.poolers import with_fast_poolers
from segroi.d2.predict import save_categories
from segroi.d2.report import TimedLoader, write_report
from segroi.d2.solver import build_optimizer
from segroi.d2.survival import StopOnSigterm, refuse_live_folder, surviving_run


class Trainer(DefaultTrainer):
    """Detectron2's default trainer with segroi's evaluators, optimizers and checkpoints.

    Args:
        cfg: as for Detectron2.
        reading: ``trust`` and ``sha256`` of :class:`SafeCheckpointer`.
    """

    def __init__(self, cfg: CfgNode, **reading: Any) -> None:
        self.reading = reading
        super().__init__(cfg)
        step, solver = self._trainer, cfg.SOLVER
        self._trainer = build_step_trainer(
            step.model, step.data_loader, step.optimizer, solver.ACCUMULATE, solver.AMP.ENABLED
        )

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks, and one that ends the run on SIGTERM."""
        self.checkpointer = SafeCheckpointer(
            self._trainer.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self), **self.reading
        )
        return [*super().build_hooks(), StopOnSigterm(self.checkpointer)]

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's model; segroi pools in it unless ``MODEL.REPLACE_POOLERS`` is off."""
        return with_fast_poolers(super().build_model(cfg), cfg.MODEL.REPLACE_POOLERS)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """Evaluate boxes and masks as COCO does, semantic segmentation by its mean IoU."""
        return build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> TimedLoader:
        """Detectron2's loader, timed."""
        return TimedLoader(super().build_test_loader(cfg, dataset_name), cfg.OUTPUT_DIR)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer that ``SOLVER.OPTIMIZER`` names."""
        return build_optimizer(cfg, model)


def setup(args: argparse.Namespace) -> CfgNode:
    """Read the config, and do what Detectron2 does at the beginning of a job."""
    cfg = load_config(args.config_file)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    apply_data_arguments(cfg, args)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    if not args.eval_only:
        refuse_live_folder(cfg.OUTPUT_DIR)
    default_setup(cfg, args)
    return cfg


def main(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train and evaluate, or evaluate only; either way a report is written."""
    cfg = setup(args)
    reading = {"trust": args.trust_weights, "sha256": args.weights_sha256}
    if not args.eval_only:
        trainer = Trainer(cfg, **reading)
        if comm.is_main_process():
            save_categories(cfg.OUTPUT_DIR, cfg.DATASETS.TRAIN[0])
        trainer.resume_or_load(resume=args.resume)
        with surviving_run(trainer._trainer.model, cfg.OUTPUT_DIR):
            results = trainer.train()
        report(cfg, args, trainer._last_eval_results)  # train() returns them where it checks them
        return results
    model = Trainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, **reading)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = Trainer.test(cfg, model)
    report(cfg, args, results)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def report(cfg: CfgNode, args: argparse.Namespace, results: dict[str, Any] | None) -> None:
    """Write ``report.html`` into the run's folder."""
    if cfg.DATASETS.TEST:
        name = Path(args.config_file).stem
        write_report(cfg.OUTPUT_DIR, cfg.DATASETS.TEST[-1], results or {}, name)


if __name__ == "__main__":
    invoke(main)
