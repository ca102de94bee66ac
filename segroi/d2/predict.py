"""A run of either launcher, loaded again to look at other pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog, transforms
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from segroi.d2.checkpoint import SafeCheckpointer
from segroi.d2.config import load_config
from segroi.d2.poolers import with_fast_poolers
from segroi.d2.trust import load_lazy_config

CONFIG = "config.yaml"
CATEGORIES = "categories.json"


class Detector(nn.Module):
    """A Detectron2 model behind the call of torchvision's detection models."""

    def __init__(
        self, model: nn.Module, resize: transforms.Augmentation, input_format: str = "BGR"
    ) -> None:
        """Hold the model.

        Args:
            model: takes Detectron2's list of dicts.
            resize: what the model's test images go through.
            input_format: "BGR" or "RGB", as the model was trained.
        """
        super().__init__()
        self.model = model
        self.resize = resize
        self.input_format = input_format

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Detect objects.

        Args:
            images: float ``Tensor[3, H, W]`` each, RGB in 0..1.

        Returns:
            For each image ``boxes`` (``Tensor[N, 4]``, xyxy px), ``scores``, ``labels`` (from 1 on)
            and, where the model predicts them, ``masks`` (``Tensor[N, 1, H, W]`` in 0..1).
        """
        found = self.model([self._input(image) for image in images])
        return [_output(f["instances"]) for f in found]

    def _input(self, image: Tensor) -> dict[str, object]:
        pixels = (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        if self.input_format == "BGR":
            pixels = pixels[:, :, ::-1]
        resized = self.resize.get_transform(pixels).apply_image(pixels)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}


def load_run(
    weights: str | Path, device: str | torch.device = "cpu", threshold: float = 0.0
) -> tuple[Detector, list[str]]:
    """Load what a launcher left; neither its config nor its weights can run code.

    Args:
        weights: a checkpoint in the folder of the run, beside its ``config.yaml``.
        device: where to run.
        threshold: heads leave out detections that score less, before they make masks.

    Returns:
        The detector in eval mode, and the names of its categories in the order of the labels.
    """
    folder = Path(weights).parent
    if is_lazy(folder):
        lazy = load_lazy_config(folder / CONFIG)
        model = instantiate(lazy.model).to(device)
        resize = instantiate(lazy.dataloader.test.mapper.augmentations[0])
        detector = Detector(model, resize, lazy.model.input_format)
    else:
        cfg = load_config(str(folder / CONFIG))
        cfg.MODEL.DEVICE = str(device)
        sizes = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        resize = transforms.ResizeShortestEdge([sizes[0], sizes[0]], sizes[1])
        detector = Detector(build_model(cfg), resize, cfg.INPUT.FORMAT)
    SafeCheckpointer(detector.model).load(str(weights))
    with_fast_poolers(detector)
    for module in detector.modules():
        if isinstance(module, FastRCNNOutputLayers):
            module.test_score_thresh = max(module.test_score_thresh, threshold - 1e-6)
    return detector.eval(), json.loads((folder / CATEGORIES).read_text())


def is_lazy(folder: Path) -> bool:
    """Whether a run was configured lazily (yacs has its keys in capitals)."""
    return "\nMODEL:" not in f"\n{(folder / CONFIG).read_text()}"


def save_categories(folder: str | Path, dataset: str) -> None:
    """Write the category names of a dataset that has been loaded beside the weights."""
    names = list(MetadataCatalog.get(dataset).thing_classes)
    (Path(folder) / CATEGORIES).write_text(json.dumps(names))


def _output(instances: Instances) -> dict[str, Tensor]:
    output = {
        "boxes": instances.pred_boxes.tensor,
        "scores": instances.scores,
        "labels": instances.pred_classes + 1,
    }
    if instances.has("pred_masks"):
        output["masks"] = instances.pred_masks[:, None].float()
    return output
