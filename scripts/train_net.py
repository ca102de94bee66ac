#!/usr/bin/env python
"""Detectron2's training script for yaml configs, with segroi's models and datasets registered.

All of Detectron2's options (--num-gpus, --resume, --eval-only, KEY VALUE ...), and --data-json for
your own COCO-format data. Without a GPU it runs on the CPU.

    python scripts/train_net.py --config-file configs/d2/mask_rcnn_groie_R_50_FPN_1x.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from torch import nn

from segroi.d2 import load_config
from segroi.d2.data import apply_data_arguments
from segroi.d2.evaluation import build_evaluator
from segroi.d2.launch import invoke
from segroi.d2.predict import save_categories
from segroi.d2.report import TimedLoader, write_report
from segroi.d2.solver import build_optimizer


class Trainer(DefaultTrainer):
    """Detectron2's default trainer with segroi's evaluators and optimizers."""

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
    default_setup(cfg, args)
    return cfg


def main(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train and evaluate, or evaluate only; either way a report is written."""
    cfg = setup(args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        if comm.is_main_process():
            save_categories(cfg.OUTPUT_DIR, cfg.DATASETS.TRAIN[0])
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
        report(cfg, args, trainer._last_eval_results)  # train() returns them where it checks them
        return results
    model = Trainer.build_model(cfg)
    checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
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
