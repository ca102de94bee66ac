"""COCO-format data for training and evaluation.

Everything that chance decides (order, flips) is in the sampler and is a function of the seed and
the iteration alone; reading an item is deterministic. So a killed run resumes with its batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from segroi.utils.coco import load_coco
from segroi.utils.images import load_image
from segroi.utils.safe_files import inside
from segroi.utils.suggest import UsageError, existing_folder

Target = dict[str, Tensor]


class Draw(NamedTuple):
    """One picture of a batch: which one, and whether it is mirrored."""

    index: int
    flip: bool = False


class CocoDataset(Dataset):
    """Images and instances of a COCO-format file.

    Category ids may have gaps: labels are 1..C in the order of the ids (0 is background). Crowd
    regions and instances without area are left out of the targets (COCO's evaluation reads the file
    itself and ignores what falls on a crowd). Images without instances are kept.

    Args:
        annotations: COCO-format JSON with polygons or RLE.
        images: folder that the file names are relative to.
        categories: categories of a trained model (``id`` and ``name`` each), to keep its labels.
    """

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path,
        categories: Sequence[dict] | None = None,
    ) -> None:
        self.file, self.coco = Path(annotations), load_coco(annotations)
        self.folder = existing_folder(images, "image folder")
        self.image_ids = sorted(self.coco.imgs)
        own = [{"id": c["id"], "name": c["name"]} for _, c in sorted(self.coco.cats.items())]
        self.categories = own if categories is None else list(categories)
        if not own:
            raise UsageError(f"annotation file {annotations} has no categories")
        self._labels = {c["id"]: label for label, c in enumerate(self.categories, start=1)}
        self._check_categories(own, annotations)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, Target]:
        """An image ``float32 [3, H, W]`` in 0..1 and its target.

        The target holds ``boxes`` (``[N, 4]`` xyxy px), ``labels`` (``[N]`` int64), ``masks``
        (``[N, H, W]`` uint8) and ``image_id``.
        """
        index, flip = draw if isinstance(draw, tuple) else (draw, False)
        entry = self.coco.imgs[self.image_ids[index]]
        size = (entry["height"], entry["width"])
        pixels = load_image(inside(self.folder, entry["file_name"]), size)
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        target = self._target(entry["id"], size)
        return _flip(image, target) if flip else (image, target)

    def annotated(self) -> int:
        """Number of instances that can be learnt from."""
        return sum(map(_usable, self.coco.anns.values()))

    def summary(self, target: Target) -> dict[str, object]:
        """What a post-mortem tells of an image."""
        boxes = target["boxes"]
        sides = (boxes[:, 2:] - boxes[:, :2]).flatten()
        return {
            "file": self.coco.imgs[int(target["image_id"])]["file_name"],
            "instances": len(boxes),
            "boxes": [[round(v, 2) for v in box] for box in boxes.tolist()],
            "smallest_side_px": float(sides.min()) if len(boxes) else None,
            "largest_side_px": float(sides.max()) if len(boxes) else None,
        }

    def category_id(self, label: int) -> int:
        """The file's category id of a label (1..C)."""
        return self.categories[label - 1]["id"]

    def _target(self, image_id: int, size: tuple[int, int]) -> Target:
        annotations = [a for a in self.coco.imgToAnns[image_id] if _usable(a)]
        masks = [self._mask(annotation) for annotation in annotations]
        boxes = [_xyxy(annotation["bbox"], size) for annotation in annotations]
        kept = [i for i, b in enumerate(boxes) if masks[i].any() and b[0] < b[2] and b[1] < b[3]]
        labels = [self._labels[annotations[i]["category_id"]] for i in kept]
        stack = np.stack([masks[i] for i in kept]) if kept else np.zeros((0, *size), np.uint8)
        return {
            "boxes": torch.tensor([boxes[i] for i in kept], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "masks": torch.from_numpy(stack),
            "image_id": torch.tensor(image_id),
        }

    def _mask(self, annotation: dict) -> np.ndarray:
        try:
            return self.coco.annToMask(annotation)
        except Exception as error:  # pycocotools raises bare Exceptions of every kind
            where = f"annotation {annotation['id']} of image {annotation['image_id']}"
            raise UsageError(f"{where}: the segmentation cannot be decoded: {error}") from error

    def _check_categories(self, own: list[dict], path: str | Path) -> None:
        strays = [c for c in own if c["id"] not in self._labels]
        used = {a["category_id"] for a in self.coco.anns.values()}
        unknown = sorted((used - {c["id"] for c in own}) | {c["id"] for c in strays})
        if unknown:
            known = ", ".join(f"{c['id']}={c['name']}" for c in self.categories[:10])
            raise UsageError(f"{path}: category ids {unknown} are not among the known: {known}")


class IterationSampler(Sampler[list[Draw]]):
    """Batches of training, each a function of the seed and its iteration; feeds ``batch_sampler``.

    Args:
        length: number of images.
        batch_size: images an iteration.
        iterations: (first, end): iterations to draw for; a resumed run starts later.
        seed: seed of order and flips.
        flip: probability that an image is mirrored.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        iterations: tuple[int, int],
        seed: int = 0,
        flip: float = 0.5,
    ) -> None:
        self.length, self.batch_size = length, batch_size
        self.iterations, self.seed, self.flip = iterations, seed, flip

    def __len__(self) -> int:
        return self.iterations[1] - self.iterations[0]

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, np.empty(0)
        for iteration in range(*self.iterations):
            batch = []
            for position in range(iteration * self.batch_size, (iteration + 1) * self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
                flip = np.random.default_rng((self.seed, 1, position)).random() < self.flip
                batch.append(Draw(int(order[position % self.length]), bool(flip)))
            yield batch


def collate(items: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Images and targets as two lists: the images differ in size."""
    images, targets = zip(*items)
    return list(images), list(targets)


def _usable(annotation: dict) -> bool:
    width, height = annotation["bbox"][2:]
    has_mask = bool(annotation.get("segmentation"))
    return not annotation.get("iscrowd", 0) and width > 0 and height > 0 and has_mask


def _xyxy(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    x, y, width, height = box
    return [max(x, 0.0), max(y, 0.0), min(x + width, size[1]), min(y + height, size[0])]


def _flip(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    x0, y0, x1, y1 = target["boxes"].unbind(1)
    width = image.shape[-1]
    boxes = torch.stack([width - x1, y0, width - x0, y1], dim=1)
    return image.flip(-1), {**target, "boxes": boxes, "masks": target["masks"].flip(-1)}
