"""Crops of single persons for two-class segmentation (SSD-ISB thesis, section 4.3).

Each crop shows one person in the middle of a box of fixed aspect. Only that person is labelled 1;
everything else, other people too, is 0; what lies outside the photograph is 255 and counts nowhere.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from segroi.utils.suggest import UsageError, unknown

IGNORE_LABEL = 255
_CITYSCAPES_PERSON = 24  # instance ids are 1000 * label + number; groups carry the bare label


class Person(NamedTuple):
    """One instance: a name for its files, its photograph, its box (xyxy px) and its mask [H, W]."""

    name: str
    image_file: Path
    box: tuple[float, float, float, float]
    mask: np.ndarray


def coco_people(
    json_file: Path, image_root: Path, category: str = "person", detections: Path | None = None
) -> Iterator[Person]:
    """Instances of one category of a COCO-format file, without crowds.

    Args:
        json_file: annotations.
        image_root: folder of the photographs.
        category: name of the category.
        detections: boxes in COCO's result format, for instance a detector's
            ``coco_instances_results.json``. Each instance then has the detected box that fits it
            best instead of its own; instances that no box meets with an IoU of 0.5 are left out.

    Raises:
        UsageError: if the file has no such category.
    """
    coco = COCO(json_file)
    categories = coco.getCatIds(catNms=[category])
    if not categories:
        known = [c["name"] for c in coco.loadCats(coco.getCatIds())]
        raise UsageError(f"{json_file}: {unknown('category', category, known)}")
    found = _detected_boxes(detections, categories) if detections else None
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        path = Path(image_root, image["file_name"])
        ids = coco.getAnnIds(imgIds=[image["id"]], catIds=categories, iscrowd=False)
        for annotation in coco.loadAnns(ids):
            box = annotation["bbox"]
            if found is not None:
                box = _best_box(box, found[image["id"]])
            if box is None:
                continue
            x, y, w, h = box
            mask = coco.annToMask(annotation)
            yield Person(f"{path.stem}_{annotation['id']}", path, (x, y, x + w, y + h), mask)


def _detected_boxes(results_file: Path, categories: list[int]) -> dict[int, list[list[float]]]:
    """Boxes (x, y, width, height) of some categories by image."""
    boxes: dict[int, list[list[float]]] = defaultdict(list)
    for result in json.loads(Path(results_file).read_text()):
        if result["category_id"] in categories:
            boxes[result["image_id"]].append(result["bbox"])
    return boxes


def _best_box(box: list[float], found: list[list[float]]) -> list[float] | None:
    """The found box of the largest IoU, if that is at least one half."""
    if not found:
        return None
    overlaps = mask_utils.iou(np.array(found, float), np.array([box], float), [0])[:, 0]
    best = int(overlaps.argmax())
    return found[best] if overlaps[best] >= 0.5 else None


def cityscapes_people(root: Path, split: str) -> Iterator[Person]:
    """Persons of Cityscapes' fine annotations; groups and riders are left out.

    Args:
        root: folder that holds ``leftImg8bit`` and ``gtFine``.
        split: ``"train"`` or ``"val"``.
    """
    for ids_file in sorted(Path(root, "gtFine", split).glob("*/*_gtFine_instanceIds.png")):
        stem = ids_file.name.removesuffix("_gtFine_instanceIds.png")
        name = f"{stem}_leftImg8bit.png"
        image_file = Path(root, "leftImg8bit", split, ids_file.parent.name, name)
        ids = cv2.imread(str(ids_file), cv2.IMREAD_UNCHANGED)
        for instance in np.unique(ids[ids // 1000 == _CITYSCAPES_PERSON]):
            mask = (ids == instance).astype(np.uint8)
            x, y, w, h = cv2.boundingRect(mask)
            yield Person(f"{stem}_{instance}", image_file, (x, y, x + w, y + h), mask)


def grow_box(
    box: tuple[float, float, float, float], aspect: float, background: float
) -> tuple[float, float, float, float]:
    """Grow a box around its centre to an aspect, then by a part of its sides on every side.

    Args:
        box: xyxy px.
        aspect: height over width.
        background: part of the grown width and height that each side gains (0, 0.05, 0.1).

    Returns:
        xyxy px; it may leave the image.
    """
    x0, y0, x1, y1 = box
    width = max(x1 - x0, (y1 - y0) / aspect)
    half_w = width * (0.5 + background)
    half_h = width * aspect * (0.5 + background)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half_w, y - half_h, x + half_w, y + half_h


def crop_region(
    box: tuple[float, float, float, float], size: tuple[int, int], background: float
) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1) that :func:`crop_person` cuts out, at least one.

    Args:
        box: xyxy px.
        size: (height, width) px of the crop.
        background: see :func:`grow_box`.
    """
    grown = grow_box(box, size[0] / size[1], background)
    x0, y0 = (int(np.floor(v)) for v in grown[:2])
    x1, y1 = (int(np.ceil(v)) for v in grown[2:])
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def crop_person(
    image: np.ndarray, person: Person, size: tuple[int, int], background: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one person out.

    Args:
        image: uint8 ``[H, W, 3]``.
        person: the instance, whose mask is ``[H, W]``.
        size: (height, width) px of the crop, whose aspect the box takes.
        background: see :func:`grow_box`.

    Returns:
        The crop uint8 ``[height, width, 3]``, zero outside the image, and its label uint8
        ``[height, width]`` of 0, 1 and 255.
    """
    x0, y0, x1, y1 = crop_region(person.box, size, background)
    height, width = image.shape[:2]
    inside = np.s_[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    top, left = max(-y0, 0), max(-x0, 0)
    place = np.s_[top : top + image[inside].shape[0], left : left + image[inside].shape[1]]
    crop = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    label = np.full((y1 - y0, x1 - x0), IGNORE_LABEL, np.uint8)
    crop[place], label[place] = image[inside], person.mask[inside]
    shrinks = crop.shape[0] > size[0]
    crop = cv2.resize(
        crop, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return crop, cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def make_person_crops(
    people: Iterable[Person],
    output_dir: Path,
    size: tuple[int, int] = (320, 192),
    background: float = 0.0,
    category: str = "person",
) -> int:
    """Write ``images/*.png``, ``labels/*.png``, ``crops.json`` and ``classes.json``.

    Args:
        people: of :func:`coco_people` or :func:`cityscapes_people`.
        output_dir: made if it is not there.
        size: (height, width) px; the thesis has (320, 192) and (160, 96).
        background: 0, 0.05 or 0.1 in the thesis.
        category: what the crops show, the name of class 1.

    Returns:
        The number of crops.
    """
    output_dir = Path(output_dir)
    for folder in ("images", "labels"):
        (output_dir / folder).mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    image_file, image = None, None
    for person in people:
        if person.image_file != image_file:
            image_file, image = person.image_file, cv2.imread(str(person.image_file))
            if image is None:
                raise FileNotFoundError(f"make_person_crops: cannot read {image_file}")
        for folder, picture in zip(
            ("images", "labels"), crop_person(image, person, size, background)
        ):
            cv2.imwrite(str(output_dir / folder / f"{person.name}.png"), picture)
        names.append(person.name)
    index = {"size": list(size), "background": background, "crops": names}
    (output_dir / "crops.json").write_text(json.dumps(index))
    (output_dir / "classes.json").write_text(json.dumps(["background", category]))
    return len(names)


class PersonCrops(Dataset):
    """The crops that :func:`make_person_crops` wrote.

    Items are the image, float32 RGB ``Tensor[3, H, W]`` in [0, 1], and its label, int64
    ``Tensor[H, W]``.

    Args:
        root: folder of the crops.
        flip: mirror every other item at random.
    """

    def __init__(self, root: Path, flip: bool = False) -> None:
        self.root, self.flip = Path(root), flip
        self.names: list[str] = json.loads((self.root / "crops.json").read_text())["crops"]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name = f"{self.names[index]}.png"
        image = cv2.imread(str(self.root / "images" / name))[..., ::-1].copy()
        label = cv2.imread(str(self.root / "labels" / name), cv2.IMREAD_UNCHANGED)
        pair = torch.from_numpy(image).permute(2, 0, 1) / 255, torch.from_numpy(label).long()
        if self.flip and torch.rand(()) < 0.5:
            return pair[0].flip(-1), pair[1].flip(-1)
        return pair
