"""Low-cost semantic segmentation on the torchvision host (SSD-ISB thesis, chapter 4)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from segroi.modeling.backbones.squeezenet import SqueezeNet
from segroi.modeling.semantic.iou import ClassIoU
from segroi.modeling.semantic.low_cost import (
    IGNORE_LABEL,
    LowCostSegmenter,
    low_cost_parts,
    segmentation_loss,
)
from segroi.tv.data import collate
from segroi.tv.evaluate import detect
from segroi.tv.semantic_data import LabelDataset
from segroi.tv.ssd_isb import IMAGENET_MEAN, IMAGENET_STD, load_mobilenet_v1
from segroi.utils.images import load_image
from segroi.utils.progress import track
from segroi.utils.report import headline, percent, photograph, table
from segroi.utils.run_record import EVALUATED
from segroi.utils.safe_files import read_weights
from segroi.utils.suggest import UsageError
from segroi.utils.visualisation import draw_classes

SCORES = "semantic.json"
LOSSES = ("sum", "mean")
_DIVISOR = 32  # images of a batch are padded to multiples, as Detectron2's host does


class SemanticSegmenter(LowCostSegmenter):
    """A segmenter that is called as the host's other models are; parameters as in Detectron2.

    Args:
        parts: as of :class:`LowCostSegmenter`.
        size: short side in px that images are resized to; 0: as they are.
        loss: "sum" over an image's pixels, or "mean".
    """

    def __init__(self, *parts: Any, size: int = 0, loss: str = "sum") -> None:
        super().__init__(*parts)
        self.size, self.loss = size, loss
        for name, values in (("pixel_mean", IMAGENET_MEAN), ("pixel_std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """The loss in training, the classes of the pixels otherwise.

        Args:
            images: of each image Tensor[3, H, W] in 0..1, any size.
            targets: of each image ``labels`` int64 Tensor[H, W]; 255 counts nowhere.

        Returns:
            ``loss_sem_seg``; or for each image ``semantic``, int64 Tensor[H, W].
        """
        inputs = [self._resized(((i - self.pixel_mean) / self.pixel_std)[None]) for i in images]
        logits = super().forward(torch.cat([_padded(x, inputs, 0.0) for x in inputs]))
        if not self.training:
            return [
                {"semantic": self._classes(part[:, : x.shape[2], : x.shape[3]], image)}
                for image, x, part in zip(images, inputs, logits)
            ]
        if targets is None:
            raise ValueError("SemanticSegmenter: targets must be given in training, got None")
        maps = [t["labels"][None, None] for t in targets]
        maps = [F.interpolate(m.float(), x.shape[-2:]).long() for m, x in zip(maps, inputs)]
        labels = torch.cat([_padded(m, inputs, IGNORE_LABEL) for m in maps])[:, 0]
        return {"loss_sem_seg": segmentation_loss(logits, labels, reduction=self.loss)}

    def _resized(self, image: Tensor) -> Tensor:
        if not self.size:
            return image
        sides = image.shape[-2:]
        short = torch.sym_min(*sides)
        # in integers, which a graph can hold
        size = [(2 * side * self.size + short) // (2 * short) for side in sides]
        return F.interpolate(image, size, mode="bilinear", antialias=True)

    def _classes(self, logits: Tensor, image: Tensor) -> Tensor:
        if self.size:
            logits = F.interpolate(logits[None], image.shape[-2:], mode="bilinear")[0]
        return logits.argmax(0)


def _padded(x: Tensor, batch: Sequence[Tensor], value: float) -> Tensor:
    """Padded at the right and at the bottom to the largest of the batch, whole cells."""
    height, width = (
        (max(other.shape[d] for other in batch) + _DIVISOR - 1) // _DIVISOR * _DIVISOR
        for d in (-2, -1)
    )
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), value=value)


def build_semantic(
    num_classes: int,
    *,
    encoder: str = "mobilenet_v1",
    steps: int = 2,
    output_stride: int = 0,
    last_atrous_rate: int = 1,
    depth_multiplier: float = 0.5,
    padding: str = "same",
    frozen_statistics: bool = True,
    size: int = 0,
    loss: str = "sum",
) -> SemanticSegmenter:
    """Build a row of the thesis's Table 4.2, or any other combination.

    Args:
        num_classes: classes, background included.
        encoder: "mobilenet_v1" or "squeezenet".
        steps: of the decoder: 0, 1 (FCN-16 on MobileNet, FCN-8 on SqueezeNet) or 2 (FCN-8, FCN-4).
        output_stride: 32, 16 or 8 of MobileNet, 16 or 8 of SqueezeNet; 0: the largest.
        last_atrous_rate: multiplies the dilation of the last 3x3 convolution.
        depth_multiplier: of MobileNet's channels.
        padding: of MobileNet: "same" as in TensorFlow, or "symmetric".
        frozen_statistics: keep batch norm statistics in training.
        size: short side in px that images are resized to; 0: as they are.
        loss: "sum" over an image's pixels as in the thesis, or "mean".

    Raises:
        UsageError: a name or a number is none of those above.
    """
    if loss not in LOSSES:
        raise UsageError(f"loss must be sum or mean, got {loss!r}")
    options = {"last_atrous_rate": last_atrous_rate}
    options |= {"output_stride": output_stride} if output_stride else {}
    if encoder == "mobilenet_v1":
        options |= {"depth_multiplier": depth_multiplier, "padding": padding}
    try:
        network, *maps = low_cost_parts(encoder, steps, **options)
        parts = (network, num_classes, *maps, frozen_statistics)
        return SemanticSegmenter(*parts, size=size, loss=loss)
    except ValueError as error:
        raise UsageError(str(error)) from error


def load_encoder(backbone: nn.Module, path: str | Path) -> None:
    """Load ImageNet weights of MobileNet-v1, or torchvision's of SqueezeNet v1.1.

    Raises:
        UsageError: the file is missing, damaged, or of another network.
    """
    if not isinstance(backbone, SqueezeNet):
        return load_mobilenet_v1(backbone, path)
    weights = {k: v for k, v in read_weights(path).items() if not k.startswith("classifier.")}
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"backbone weights {path} are of another network: {error}") from error


def evaluate_semantic(
    model: nn.Module, dataset: LabelDataset, output: str | Path, title: str, workers: int = 0
) -> dict[str, dict[str, float]]:
    """Predict every image of a dataset and write ``semantic.json``.

    Args:
        model: a :class:`SemanticSegmenter`.
        dataset: images and their label maps.
        output: folder to write.
        title: of the progress bar.
        workers: reading processes.

    Returns:
        ``all``: mIoU, fwIoU, mACC and pACC, and ``IoU`` by class, in 0..1; -1 for a class that is
        neither labelled nor found.
    """
    output, started = Path(output), time.perf_counter()
    counts = ClassIoU(len(dataset.categories))
    loader = DataLoader(dataset, 1, num_workers=workers, collate_fn=collate)
    for images, targets in track(loader, title):
        for target, found in zip(targets, detect(model, images)):
            counts.update(found["semantic"], target["labels"])
    names = [category["name"] for category in dataset.categories]
    scores = {"all": counts.scores(), "IoU": dict(zip(names, counts.compute().tolist()))}
    scores = {part: {k: _known(v) for k, v in values.items()} for part, values in scores.items()}
    output.mkdir(parents=True, exist_ok=True)
    (output / SCORES).write_text(json.dumps(scores, indent=2))
    evaluated = {"data": str(dataset.labels.resolve()), "images": str(dataset.folder.resolve())}
    evaluated |= {"count": len(dataset), "seconds": time.perf_counter() - started}
    (output / EVALUATED).write_text(json.dumps(evaluated, indent=2))
    return scores


def _known(value: float) -> float:
    """-1 for what cannot be measured, as COCO's numbers have it: NaN is no JSON."""
    return -1.0 if math.isnan(value) else value


def read_semantic(folder: Path) -> dict[str, dict[str, float]]:
    """What :func:`evaluate_semantic` wrote; empty where there is none."""
    path = folder / SCORES
    return json.loads(path.read_text()) if path.exists() else {}


def semantic_sections(
    model: nn.Module, dataset: LabelDataset, output: Path, count: int = 8
) -> dict[str, str]:
    """Sections of a report: the numbers, the classes, and pictures of label and prediction."""
    scores = read_semantic(output)
    large = {name: percent(value) for name, value in scores["all"].items()}
    rows = [[name, percent(value)] for name, value in scores["IoU"].items()]
    folder = output / "pictures"
    folder.mkdir(exist_ok=True)
    pages = []
    for index in range(0, len(dataset), max(1, len(dataset) // count))[:count]:
        label_file, image_file = dataset.pairs[index]
        pixels, labels = load_image(image_file), dataset[index][1]["labels"].numpy()
        found, _ = segment_pixels(model, dataset.categories, pixels)
        names = [category["name"] for category in dataset.categories]
        truth = draw_classes(pixels, labels.astype(np.uint8), names)
        drawn = np.concatenate([truth, found], axis=1)
        cv2.imwrite(str(folder / f"{label_file.stem}.png"), drawn[..., ::-1])
        pages.append(photograph(drawn, label_file.stem))
    return {
        "Classes": headline(large) + table(["class", "IoU (%)"], rows),
        "Labels and predictions": "".join(pages),
    }


def segment_pixels(
    model: nn.Module, categories: Sequence[dict], pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predict one picture.

    Args:
        model: a :class:`SemanticSegmenter`.
        categories: the classes that it was trained on.
        pixels: RGB uint8 ``[H, W, 3]``.

    Returns:
        The picture with the colours and names of the classes over it, uint8 ``[H, W, 3]``, and the
        class of each pixel, uint8 ``[H, W]``.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    labels = detect(model, [image])[0]["semantic"].numpy().astype(np.uint8)
    return draw_classes(pixels, labels, [c["name"] for c in categories]), labels


def shares(labels: np.ndarray, categories: Sequence[dict]) -> list[dict[str, object]]:
    """The classes of a picture and their share of its pixels, the largest first."""
    counts = np.bincount(labels.flatten(), minlength=len(categories)) / labels.size
    found = [{"name": c["name"], "share": round(float(counts[c["id"]]), 4)} for c in categories]
    return sorted((f for f in found if f["share"]), key=lambda f: -f["share"])
