"""A data set in which every image and every annotation is wrong in its own way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30
POLYGON = [4, 4, 24, 4, 24, 20, 4, 20]
BOX = [4, 4, 20, 16]
# A mask of the columns 4 to 39, rows 4 to 19.
RIGHT = {"size": [30, 40], "counts": [124, *[16, 14] * 35, 16, 10]}

# code -> how the file is written; all are annotated as 40x30.
PICTURES = {
    "image-missing": lambda path: None,
    "image-empty-file": lambda path: path.touch(),
    "image-damaged": lambda path: path.write_text("no image"),
    "image-truncated": lambda path: _truncate(path),
    "image-size": lambda path: _grey(31, 30).save(path),
    "image-exif": lambda path: _rotated(path),
    "image-tiny": lambda path: _grey(40, 2).save(path),
    "image-16-bit": lambda path: Image.fromarray(np.full((30, 40), 900, np.uint16)).save(path),
    "image-cmyk": lambda path: _grey(40, 30).convert("CMYK").save(path, format="JPEG"),
    "image-palette": lambda path: _grey(40, 30).convert("P").save(path),
    "image-alpha": lambda path: _grey(40, 30).convert("RGBA").save(path),
    "image-animated": lambda path: _grey(40, 30).save(
        path, format="GIF", save_all=True, append_images=[Image.new("L", (40, 30), 9)]
    ),
}

# code -> changes to a sound annotation.
ANNOTATIONS = {
    "annotation-image": {"image_id": 999},
    "annotation-category": {"category_id": 99},
    "annotation-no-area": {"area": None},
    "annotation-no-mask": {"segmentation": []},
    "box-broken": {"bbox": [1, 2, 3]},
    "box-empty": {"bbox": [4, 4, 0, 16]},
    "box-outside": {"bbox": [200, 4, 20, 16], "segmentation": RIGHT},
    "box-beyond": {"bbox": [4, 4, 39, 16], "segmentation": RIGHT},
    "box-differs": {"bbox": [18, 4, 20, 16]},
    "mask-type": {"segmentation": "polygon"},
    "polygon-short": {"segmentation": [[4, 4, 24, 20]]},
    "polygon-odd": {"segmentation": [[4, 4, 24, 4, 24, 20, 4]]},
    "polygon-numbers": {"segmentation": [[4, 4, 24, 4, "24", 20]]},
    "polygon-flat": {"segmentation": [POLYGON, [4, 4, 14, 4, 24, 4]]},
    "polygon-outside": {"segmentation": [[4, 4, 24, 4, 24, 36, 4, 20]], "bbox": [4, 4, 20, 26]},
    "polygon-crossing": {"segmentation": [[4, 4, 24, 20, 24, 4, 4, 20]]},
    "rle-size": {"segmentation": {"size": [40, 30], "counts": [0, 1200]}},
    "rle-damaged": {"segmentation": {"size": [30, 40], "counts": [10, 5000]}},
    "rle-empty": {"segmentation": {"size": [30, 40], "counts": [1200]}},
}


def annotation(number: int, image: int = 1, **changes: object) -> dict:
    entry = {"id": number, "image_id": image, "category_id": 1, "bbox": BOX, "area": 320.0}
    return {**entry, "iscrowd": 0, "segmentation": [POLYGON], **changes}


def image(number: int, name: str, **changes: object) -> dict:
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH, **changes}


def write(folder: Path, images: list, annotations: list, categories: list | None = None) -> Path:
    categories = [{"id": 1, "name": "thing"}] if categories is None else categories
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "data.json").write_text(json.dumps(content))
    return folder / "data.json"


def sound(folder: Path, count: int = 2) -> Path:
    """A sound data set of ``count`` images with ten annotations each."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        _grey(WIDTH, HEIGHT).save(folder / "images" / f"{number}.png")
    images = [image(number, f"{number}.png") for number in range(1, count + 1)]
    annotations = [annotation(10 * i["id"] + k, i["id"]) for i in images for k in range(10)]
    return write(folder, images, annotations)


def broken(folder: Path) -> tuple[Path, dict[str, int]]:
    """Write the broken data set; returns its file, and which entry has which fault."""
    data = json.loads(sound(folder).read_text())
    where: dict[str, int] = {}
    for number, (code, make) in enumerate(PICTURES.items(), start=100):
        name = f"{code}.png"
        make(folder / "images" / name)
        data["images"].append(image(number, name))
        where[code] = number
    for number, (code, changes) in enumerate(ANNOTATIONS.items(), start=1000):
        data["annotations"].append(annotation(number, **changes))
        where[code] = number
    data["images"] += [
        image(1, "again.png"),
        image(201, "2.png"),
        image(202, "1.png", height=0),
        image(203, "../../outside.png"),
        image(204, "image-missing.jpg"),
        {"id": 205},
    ]
    where |= {"image-duplicate-id": 1, "image-duplicate-file": 201, "image-size-field": 202}
    where |= {"image-path": 203, "entry-broken": 205, "image-no-annotations": 100}
    data["annotations"] += [annotation(10)]
    data["annotations"] += [annotation(2000 + i, 2) for i in range(501)]
    where |= {"annotation-duplicate-id": 10, "image-many-instances": 2}
    data["categories"] += [
        {"id": 1, "name": "other"},
        {"id": 7, "name": "thing"},
        {"id": 8, "name": "rare"},
    ]
    data["annotations"].append(annotation(3000, category_id=8))
    where |= {"category-duplicate-id": 1, "category-duplicate-name": 7, "category-unused": 7}
    where |= {"category-rare": 8}
    path = folder / "data.json"
    path.write_text(json.dumps(data))
    return path, where


def _grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 120, 150))


def _truncate(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
    os.truncate(path, path.stat().st_size // 2)


def _rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _grey(WIDTH, HEIGHT).save(path, format="JPEG", exif=exif)
