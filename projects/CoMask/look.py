#!/usr/bin/env python
"""How good are CoMask's averaged boxes? Pictures, and box AP beside that of the cells' own boxes.

    python projects/CoMask/look.py --config-file configs/quick/comask_small.py \
        --weights output/comask_small/model_final.pth \
        --data-json annotations.json --images photographs --output output/comask_small/look

Without --data-json it takes the config's data. Each choice of box gets a folder with its numbers,
for scripts/record_runs.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from detectron2.config import instantiate
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor

from segroi.d2.checkpoint import SafeCheckpointer
from segroi.d2.comask_picture import dense_box_picture
from segroi.d2.data import add_data_arguments, apply_data_arguments
from segroi.d2.report import KINDS
from segroi.d2.trust import load_lazy_config
from segroi.utils.provenance import write_provenance
from segroi.utils.run_record import EVALUATION, Evaluation

# How one box is made of the cells' boxes [K, P, 4] and their confidence [K, P].
CHOICES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain mean of the cells": lambda boxes, weights: boxes.mean(1),
    "most confident cell": lambda boxes, weights: boxes[
        torch.arange(len(boxes)), weights.argmax(1)
    ],
    "central cell": lambda boxes, weights: boxes[:, boxes.shape[1] // 2],
}


@torch.no_grad()
def compare(cfg: DictConfig, model: GeneralizedRCNN) -> dict[str, Evaluation]:
    """AP, AP50, AP75 of the averaged boxes (and their masks) and of every other choice of box."""
    loader = instantiate(cfg.dataloader.test)
    name = cfg.dataloader.test.dataset.names
    name = name if isinstance(name, str) else instantiate(name)
    tasks = {"weighted average": ("bbox", "segm"), **dict.fromkeys(CHOICES, ("bbox",))}
    evaluators = {k: COCOEvaluator(name, tasks=t) for k, t in tasks.items()}
    for evaluator in evaluators.values():
        evaluator.reset()
    model.roi_heads.keep_dense_boxes = True
    for inputs in loader:
        for one, found in zip(inputs, model.inference(inputs, do_postprocess=False)):
            for choice, evaluator in evaluators.items():
                output = _with_boxes(found.to("cpu"), choice)
                evaluator.process(
                    [one],
                    [{"instances": detector_postprocess(output, one["height"], one["width"])}],
                )
    results = {}
    for choice, evaluator in evaluators.items():
        scores = evaluator.evaluate()
        results[choice] = {
            KINDS[task]: {m: values[m] / 100 for m in ("AP", "AP50", "AP75")}
            for task, values in scores.items()
        }
    return results


def _with_boxes(found: Instances, choice: str) -> Instances:
    """The detections with the boxes of a choice; masks stay with the average only."""
    output = Instances(found.image_size, scores=found.scores, pred_classes=found.pred_classes)
    output.pred_boxes = found.pred_boxes.clone()
    if choice in CHOICES:
        output.pred_boxes = Boxes(CHOICES[choice](found.dense_boxes, found.dense_weights))
        output.pred_boxes.clip(found.image_size)
    else:
        output.pred_masks = found.pred_masks
    return output


def write(folder: Path, evaluation: Evaluation) -> None:
    """Leave the numbers of one choice as a run's folder holds them."""
    folder.mkdir(exist_ok=True)
    (folder / EVALUATION).write_text(json.dumps(evaluation, indent=2))
    write_provenance(folder)


def draw(cfg: DictConfig, model: GeneralizedRCNN, folder: Path, count: int) -> None:
    """Write pictures of the best detection of the first images."""
    for index, inputs in zip(range(count), instantiate(cfg.dataloader.test)):
        picture = dense_box_picture(model, inputs[0])
        if picture is not None:
            cv2.imwrite(str(folder / f"dense_boxes_{index}.png"), picture[..., ::-1])


def main() -> None:
    """Read the command line, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, help="lazy config")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--pictures", type=int, default=4)
    add_data_arguments(parser)
    args = parser.parse_args()
    cfg = load_lazy_config(args.config_file)
    apply_data_arguments(cfg, args)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = instantiate(cfg.model).to(device).eval()
    SafeCheckpointer(model).load(args.weights)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for choice, evaluation in compare(cfg, model).items():
        write(folder / choice.replace(" ", "_"), evaluation)
        numbers = (
            f"{kind} {m} {100 * v:.1f}" for kind in evaluation for m, v in evaluation[kind].items()
        )
        print(f"{choice:26s}", "  ".join(numbers))
    draw(cfg, model, folder, args.pictures)


if __name__ == "__main__":
    main()
