"""Evaluators: COCO's, with a score of its own for the masks where a model predicts one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, SemSegEvaluator

MASK_SCORES = "mask_scores"


class MaskScoreCOCOEvaluator(COCOEvaluator):
    """COCO evaluation that ranks masks by ``mask_scores`` (Mask IoU) and boxes by ``scores``.

    Detectron2's evaluator knows one score per instance: a Mask IoU head would change box AP.
    Where no prediction carries ``mask_scores`` this is Detectron2's evaluator.
    """

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep the predictions, with the mask scores beside them."""
        first = len(self._predictions)
        super().process(inputs, outputs)
        scored = [o["instances"] for o in outputs if "instances" in o]
        for kept, instances in zip(self._predictions[first:], scored):
            if instances.has(MASK_SCORES):
                for record, score in zip(kept["instances"], instances.get(MASK_SCORES).tolist()):
                    record["mask_score"] = score

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None
    ) -> None:
        records = [record for p in predictions for record in p["instances"]]
        if not any("mask_score" in record for record in records):
            super()._eval_predictions(predictions, img_ids)
            return
        asked = self._tasks
        tasks = asked or self._tasks_from_predictions(records)
        for task in sorted(tasks, reverse=True):  # boxes last: the file keeps the class scores
            ranked = copy.deepcopy(predictions)
            for record in (record for p in ranked for record in p["instances"]):
                if task == "segm":
                    record["score"] = record["mask_score"]
            self._tasks = (task,)
            super()._eval_predictions(ranked, img_ids)
        self._tasks = asked


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluator:
    """The evaluator of a dataset, COCO's or that of classes of pixels.

    Results go to ``OUTPUT_DIR/inference``.
    """
    folder = output_folder or str(Path(cfg.OUTPUT_DIR) / "inference")
    if MetadataCatalog.get(dataset_name).get("evaluator_type") in ("sem_seg", "cityscapes_sem_seg"):
        return SemSegEvaluator(dataset_name, output_dir=folder)
    return MaskScoreCOCOEvaluator(dataset_name, output_dir=folder)
