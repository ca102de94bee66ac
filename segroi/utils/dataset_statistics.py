"""What a COCO-format data set holds: counts, sizes and classes, as numbers and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

# COCO's size classes, by area in px^2.
SMALL, LARGE = 32**2, 96**2


def dataset_statistics(coco: COCO) -> dict[str, Any]:
    """Counts, sizes and classes of a data set.

    Args:
        coco: the data set.

    Returns:
        Plain data: ``images``, ``instances`` (crowds are counted apart) and ``classes``, the most
        frequent first. A side is the square root of a box's area, px.
    """
    instances = _instances(coco)
    per_image = Counter(a["image_id"] for a in instances)
    sides = np.array([_side(a) for a in instances])
    areas = np.array([float(a.get("area") or _side(a) ** 2) for a in instances])
    images = list(coco.imgs.values())
    return {
        "images": {
            "count": len(images),
            "empty": sum(not per_image[i] for i in coco.imgs),
            "width": _spread([image["width"] for image in images]),
            "height": _spread([image["height"] for image in images]),
        },
        "instances": {
            "count": len(instances),
            "crowds": len(coco.anns) - len(instances),
            "per_image": _spread([per_image[i] for i in coco.imgs]),
            "side": _spread(sides),
            "areas": {
                "small": int((areas < SMALL).sum()),
                "medium": int(((areas >= SMALL) & (areas < LARGE)).sum()),
                "large": int((areas >= LARGE).sum()),
            },
        },
        "classes": _classes(coco, instances),
    }


def draw_statistics(coco: COCO, path: str | Path) -> Path:
    """Draw classes, instances an image, sizes of instances and of images into a PNG."""
    from matplotlib.figure import Figure

    instances = _instances(coco)
    per_image = Counter(a["image_id"] for a in instances)
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (top, right), (left, last) = figure.subplots(2, 2)
    rows = _classes(coco, instances)[:20]
    top.barh([r["name"] for r in rows][::-1], [r["instances"] for r in rows][::-1])
    top.set_title("instances by class" + (", the first 20" if len(coco.cats) > 20 else ""))
    counts = [per_image[i] for i in coco.imgs]
    right.hist(counts, bins=min(50, max(counts, default=0) + 1))
    right.set(title="instances an image", xlabel="instances", ylabel="images")
    sides = [side for a in instances if (side := _side(a)) > 0]
    if sides:
        left.hist(sides, bins=np.geomspace(min(sides), max(sides) + 1, 40))
        left.set_xscale("log")
    for area in (SMALL, LARGE):
        left.axvline(area**0.5, color="0.5", linewidth=0.8, linestyle="--")
    left.set(title="size of instances", xlabel="side, px", ylabel="instances")
    sizes = [(image["width"], image["height"]) for image in coco.imgs.values()]
    last.scatter(*zip(*sizes), s=8, alpha=0.4)
    last.set(title="size of images", xlabel="width, px", ylabel="height, px")
    figure.savefig(path, dpi=100)
    return Path(path)


def _instances(coco: COCO) -> list[dict[str, Any]]:
    return [a for a in coco.anns.values() if not a.get("iscrowd")]


def _classes(coco: COCO, instances: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, category in coco.cats.items():
        own = [a for a in instances if a["category_id"] == number]
        rows.append(
            {
                "id": number,
                "name": str(category["name"]),
                "instances": len(own),
                "images": len({a["image_id"] for a in own}),
                "share": len(own) / max(len(instances), 1),
                "side": float(np.median([_side(a) for a in own])) if own else 0.0,
            }
        )
    return sorted(rows, key=lambda row: -row["instances"])


def _side(annotation: dict[str, Any]) -> float:
    """Side in px of a square of the box's area."""
    width, height = annotation["bbox"][2:]
    return max(width * height, 0.0) ** 0.5


def _spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    low, middle, high, top = np.percentile(values, [0, 50, 95, 100])
    spread = {"min": low, "median": middle, "p95": high, "max": top}
    return {name: round(float(value), 1) for name, value in spread.items()}
