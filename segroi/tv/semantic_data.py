"""Pictures and their label maps for semantic segmentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from segroi.modeling.semantic.low_cost import IGNORE_LABEL
from segroi.tv.data import Draw, Target
from segroi.utils.images import SUFFIXES, load_image
from segroi.utils.suggest import UsageError, existing_folder

CLASSES = "classes.json"
# What Cityscapes calls its files, and the classes of its labelTrainIds.
_LABEL_ENDING, _IMAGE_ENDING = "_gtFine_labelTrainIds", "_leftImg8bit"
CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
    *("motorcycle", "bicycle"),
)


class LabelDataset(Dataset):
    """A folder of label maps and a folder of the images they belong to.

    A label map is an 8-bit PNG with the number of each pixel's class (255: none); its image has the
    same name, or Cityscapes' (``gtFine/train`` beside ``leftImg8bit/train``). The names of the
    classes stand in ``classes.json``, a list, in the labels' folder or the one above it;
    ``segroi data person-crops`` writes it.

    Args:
        labels: folder of label maps; folders below it count, too.
        images: folder of the images.
        categories: classes of a trained model (``id`` and ``name`` each), to keep its labels.

    Raises:
        UsageError: a folder is missing or empty, a label map has no image, or classes differ.
    """

    def __init__(
        self,
        labels: str | Path,
        images: str | Path,
        categories: Sequence[dict] | None = None,
    ) -> None:
        self.labels = existing_folder(labels, "folder of label maps")
        self.folder = existing_folder(images, "image folder")
        self.pairs = _pairs(self.labels, self.folder)
        names = _class_names(self.labels, self.pairs)
        self.categories = [{"id": number, "name": name} for number, name in enumerate(names)]
        if categories is not None and list(categories) != self.categories:
            raise UsageError(
                f"{labels} has the classes {', '.join(names)}, the model "
                f"{', '.join(c['name'] for c in categories)}"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, Target]:
        """An image ``float32 [3, H, W]`` in 0..1, and ``labels`` (int64 ``[H, W]``) with its id."""
        index, flip = draw if isinstance(draw, tuple) else (draw, False)
        label_file, image_file = self.pairs[index]
        labels = self._read(label_file)
        image = torch.from_numpy(load_image(image_file, labels.shape)).permute(2, 0, 1).float()
        target = {"labels": torch.from_numpy(labels).long(), "image_id": torch.tensor(index)}
        if flip:
            image, target["labels"] = image.flip(-1), target["labels"].flip(-1)
        return image / 255, target

    def annotated(self) -> int:
        """Number of label maps."""
        return len(self.pairs)

    def summary(self, target: Target) -> dict[str, object]:
        """What a post-mortem tells of an image."""
        counts = torch.bincount(target["labels"].flatten(), minlength=IGNORE_LABEL + 1)
        pixels = {c["name"]: int(counts[c["id"]]) for c in self.categories if counts[c["id"]]}
        file = self.pairs[int(target["image_id"])][1]
        return {"file": str(file), "pixels": pixels, "without_class": int(counts[IGNORE_LABEL])}

    def _read(self, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as stored:
                labels = np.array(stored)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise UsageError(f"label map {path} cannot be read: {error}") from error
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise UsageError(
                f"label map {path} must be one 8-bit channel of class numbers, got "
                f"{labels.dtype} {list(labels.shape)}"
            )
        wrong = np.setdiff1d(labels, [*range(len(self.categories)), IGNORE_LABEL])
        if len(wrong):
            raise UsageError(
                f"label map {path} must hold 0 to {len(self.categories) - 1} and {IGNORE_LABEL}, "
                f"got {', '.join(map(str, wrong[:5]))}"
            )
        return labels


def _pairs(labels: Path, images: Path) -> list[tuple[Path, Path]]:
    maps = sorted(labels.rglob("*.png"))
    if any(path.stem.endswith(_LABEL_ENDING) for path in maps):  # instance ids lie beside them
        maps = [path for path in maps if path.stem.endswith(_LABEL_ENDING)]
    if not maps:
        raise UsageError(f"folder {labels} holds no label map (.png)")
    known = {
        str(path.relative_to(images).with_suffix("")): path
        for path in images.rglob("*")
        if path.suffix.lower() in SUFFIXES
    }
    pairs = []
    for path in maps:
        name = str(path.relative_to(labels).with_suffix(""))
        if name.endswith(_LABEL_ENDING):
            name = name.removesuffix(_LABEL_ENDING) + _IMAGE_ENDING
        if name not in known:
            raise UsageError(f"label map {path} has no image {name} in {images}")
        pairs.append((path, known[name]))
    return pairs


def _class_names(labels: Path, pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    for path in (labels / CLASSES, labels.parent / CLASSES):
        if path.exists():
            try:
                names = json.loads(path.read_text())
            except ValueError as error:
                raise UsageError(f"{path} is no JSON: {error}") from error
            if not isinstance(names, list) or not 1 < len(names) <= IGNORE_LABEL:
                raise UsageError(f"{path} must be a list of 2 to {IGNORE_LABEL} names of classes")
            if len(set(map(str, names))) < len(names):
                raise UsageError(f"{path} names a class twice: {', '.join(map(str, names))}")
            return [str(name) for name in names]
    if pairs[0][0].stem.endswith(_LABEL_ENDING):
        return list(CITYSCAPES)
    raise UsageError(
        f'{labels} has no {CLASSES}: write the names of the classes, ["background", "person"] for '
        "example, in the order of their labels"
    )
