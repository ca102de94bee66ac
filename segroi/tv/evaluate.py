"""Run a model over a dataset and evaluate it the COCO way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from pycocotools import mask as rle_codec
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segroi.tv.data import CocoDataset, collate
from segroi.utils.coco import coco_metrics

MASK_THRESHOLD = 0.5


def detect_dataset(
    model: nn.Module,
    dataset: CocoDataset,
    batch_size: int = 1,
    workers: int = 0,
    track: Callable[[Iterable], Iterable] = iter,
) -> list[dict]:
    """Detections of a model on every image of a dataset, in COCO's result format.

    Args:
        model: one of ``segroi.tv.models``; it is run in eval mode and left in its own.
        dataset: images to run on.
        batch_size: images at a time.
        workers: reading processes; 0 reads in this one.
        track: wraps the batches, for a progress bar.
    """
    loader = DataLoader(dataset, batch_size, num_workers=workers, collate_fn=collate)
    results: list[dict] = []
    for images, targets in track(loader):
        for target, output in zip(targets, detect(model, images)):
            results += to_results(output, int(target["image_id"]), dataset)
    return results


@torch.inference_mode()
def detect(model: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Detections of a batch of images, on the CPU.

    Args:
        model: one of ``segroi.tv.models``; it is run in eval mode and left in its own.
        images: ``float32 [3, H, W]`` in 0..1 each.

    Returns:
        For each image ``boxes`` (``[N, 4]`` xyxy px), ``labels``, ``scores`` and, where the model
        predicts them, ``masks`` (bool ``[N, H, W]``).
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = model.training
    model.eval()
    outputs = model([image.to(device) for image in images])
    model.train(training)
    return [_on_cpu(output) for output in outputs]


def to_results(output: dict[str, Tensor], image_id: int, dataset: CocoDataset) -> list[dict]:
    """One image's detections in COCO's result format: boxes xywh, masks as RLE."""
    boxes = output["boxes"].double()
    boxes[:, 2:] -= boxes[:, :2]
    results = [
        {
            "image_id": image_id,
            "category_id": dataset.category_id(int(label)),
            "bbox": [round(v, 3) for v in box.tolist()],
            "score": float(score),
        }
        for box, label, score in zip(boxes, output["labels"], output["scores"])
    ]
    if "masks" in output:
        for result, mask in zip(results, output["masks"].numpy()):
            result["segmentation"] = encode_mask(mask)
    return results


def encode_mask(mask: np.ndarray) -> dict[str, object]:
    """COCO's run-length code of a mask ``[H, W]``, as JSON takes it."""
    code = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in code["size"]], "counts": code["counts"].decode()}


def evaluate(
    model: nn.Module,
    dataset: CocoDataset,
    kinds: Sequence[str] = ("box", "mask"),
    **options: object,
) -> tuple[dict[str, dict[str, float]], list[dict]]:
    """COCO's twelve numbers of a model on a dataset, and the detections they are made of.

    Args:
        model: one of ``segroi.tv.models``.
        dataset: images and their truth.
        kinds: what the model predicts: "box", "mask" or both.
        options: further arguments of ``detect_dataset``.
    """
    results = detect_dataset(model, dataset, **options)
    return coco_metrics(dataset.coco, results, kinds), results


def _on_cpu(output: dict[str, Tensor]) -> dict[str, Tensor]:
    output = {key: value.cpu() for key, value in output.items()}
    if "masks" in output:
        output["masks"] = output["masks"][:, 0] > MASK_THRESHOLD
    return output
