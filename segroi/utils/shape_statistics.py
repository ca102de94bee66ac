"""Statistics of encompassing boxes, and which branch shapes suit a data set (SSD-ISB, Table 5.1).

Shapes are (height, width) in cells of a grid that covers the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from pycocotools.coco import COCO

from segroi.modeling.ssd.families import BranchFamily
from segroi.ops import encompassing_boxes
from segroi.utils.suggest import UsageError, unknown

Shape = tuple[int, int]

_CELL_BYTES = 4 * (1024 + 4 * 512 + 16 * 256)  # of one crop's maps: conv13, conv11, conv5
_ITERATIONS = 100


def annotation_shapes(
    coco: COCO, category: str | None = None, grid: int = 20
) -> dict[int, list[tuple[dict[str, Any], Shape]]]:
    """The encompassing shape of each annotation, by image; crowds count, as in the thesis.

    Args:
        coco: annotations.
        category: name of the only category to look at; all by default.
        grid: cells along either side of the image, whatever its aspect.

    Raises:
        UsageError: there is no such category.
    """
    categories = []
    if category is not None:
        categories = coco.getCatIds(catNms=[category])
        if not categories:
            known = [c["name"] for c in coco.loadCats(coco.getCatIds())]
            raise UsageError(unknown("category", category, known))
    annotations = coco.loadAnns(coco.getAnnIds(catIds=categories))
    images = coco.loadImgs([a["image_id"] for a in annotations])
    corners = [
        [x / i["width"], y / i["height"], (x + w) / i["width"], (y + h) / i["height"]]
        for (x, y, w, h), i in zip((a["bbox"] for a in annotations), images)
    ]
    boxes = torch.tensor(corners, dtype=torch.float64).view(-1, 4) * grid
    cells = encompassing_boxes(boxes, (grid, grid), grid)
    shapes = (cells[:, 2:] - cells[:, :2]).flip(1).tolist()
    found: dict[int, list[tuple[dict[str, Any], Shape]]] = {}
    for annotation, shape in zip(annotations, shapes):
        found.setdefault(annotation["image_id"], []).append((annotation, tuple(shape)))
    return found


def count_shapes(found: Mapping[int, Iterable[tuple[dict[str, Any], Shape]]]) -> Counter[Shape]:
    """How many annotations have each shape."""
    return Counter(shape for pairs in found.values() for _, shape in pairs)


def shape_subset(
    coco: COCO,
    category: str | None = None,
    shapes: Collection[Shape] | None = None,
    only_matching: bool = False,
    grid: int = 20,
) -> dict[str, Any]:
    """The images that show a category, or annotations of it with certain shapes (section 5.1.2).

    Args:
        coco: annotations.
        category: the category to keep; all by default.
        shapes: keep images with an annotation of one of these shapes; any by default.
        only_matching: drop the annotations of other shapes.
        grid: cells along either side of the image.

    Returns:
        The content of a COCO-format file.
    """
    images, annotations = [], []
    for image_id, pairs in annotation_shapes(coco, category, grid).items():
        matching = [a for a, shape in pairs if shapes is None or shape in shapes]
        if matching:
            images.append(coco.imgs[image_id])
            annotations += matching if only_matching else [a for a, _ in pairs]
    kept = {a["category_id"] for a in annotations} if category is not None else coco.cats
    categories = [c for i, c in coco.cats.items() if i in kept]
    rest = {k: v for k, v in coco.dataset.items() if k in ("info", "licenses")}
    return {**rest, "images": images, "annotations": annotations, "categories": categories}


def suggest_shapes(
    counts: Mapping[Shape, int], branches: int = 10, max_bytes: int = 2 << 30, budget: int = 30
) -> list[Shape]:
    """Branch shapes for a data set: k-means over its shapes, within a budget of memory.

    Clusters are found in the logarithms of the sides, each annotation counting once. A centre is
    rounded down, for a branch takes boxes at least as large as itself; 1x1 is always there and
    takes what no other branch does. Where the full stacks of all branches would not fit, the
    largest shapes are made smaller.

    Args:
        counts: annotations of each shape.
        branches: most shapes wanted.
        max_bytes: memory of the branches' crops, all stacks full.
        budget: boxes in a full stack.

    Returns:
        Shapes from large to small.
    """
    if branches < 1 or not counts:
        raise ValueError(
            f"suggest_shapes: counts and branches must not be empty, got {len(counts)}, {branches}"
        )
    shapes = sorted(counts, key=lambda s: (s[0] * s[1], s))
    points = torch.tensor(shapes, dtype=torch.float64).log()
    weights = torch.tensor([counts[s] for s in shapes], dtype=torch.float64)
    centres = _kmeans(points, weights, min(branches - 1, len(shapes))).exp()
    chosen = {(1, 1)} | {
        (max(1, int(h + 1e-9)), max(1, int(w + 1e-9))) for h, w in centres.tolist()
    }
    return _within_memory(chosen, max_bytes // (budget * _CELL_BYTES))


def _kmeans(points: torch.Tensor, weights: torch.Tensor, k: int) -> torch.Tensor:
    """Centres of weighted k-means; each starts at the point that the ones before serve worst."""
    if k == 0:
        return points[:0]
    chosen = [int(weights.argmax())]
    while len(chosen) < k:
        distance = torch.cdist(points, points[chosen]).amin(dim=1)
        chosen.append(int((weights * distance**2).argmax()))
    centres = points[chosen]
    for _ in range(_ITERATIONS):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        one_hot = torch.nn.functional.one_hot(nearest, k).to(points.dtype) * weights[:, None]
        mass = one_hot.sum(dim=0)[:, None]
        moved = torch.where(mass > 0, one_hot.T @ points / mass.clamp(min=1e-9), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _within_memory(shapes: set[Shape], max_cells: int) -> list[Shape]:
    """Shapes from large to small; the largest lose a row or column until all fit."""
    shapes = set(shapes)
    while len(shapes) > 1 and sum(h * w for h, w in shapes) > max_cells:
        h, w = max(shapes, key=lambda s: (s[0] * s[1], s))
        shapes.remove((h, w))
        shapes.add((h - 1, w) if h >= w else (h, w - 1))
    return sorted(shapes, key=lambda s: (-s[0] * s[1], -s[0]))


def branch_loads(counts: Mapping[Shape, int], shapes: Sequence[Shape]) -> list[int]:
    """Annotations that each branch of a multi-shape model would take."""
    cells = torch.tensor([[0, 0, w, h] for h, w in counts])
    branch = BranchFamily(tuple(shapes), "fit").assign(cells.view(-1, 4))
    weights = torch.tensor(list(counts.values()))
    outside = branch < 0
    loads = torch.zeros(len(shapes), dtype=torch.int64)
    return loads.index_add_(0, branch[~outside], weights[~outside]).tolist()


def draw_shapes(path: str | Path, counts: Mapping[Shape, int], shapes: Sequence[Shape]) -> Path:
    """Save a picture: how frequent shapes are, and where the branches lie."""
    grid = max(max(shape) for shape in (*counts, *shapes))
    figure, axes = plt.subplots(figsize=(6, 6))
    heights, widths = zip(*counts) if counts else ((), ())
    total = max(sum(counts.values()), 1)
    areas = [6000 * n / total + 2 for n in counts.values()]
    axes.scatter(widths, heights, s=areas, alpha=0.5, label="annotations (by area)")
    axes.scatter(
        [w for _, w in shapes], [h for h, _ in shapes], marker="s", c="crimson", label="branches"
    )
    for h, w in shapes:
        axes.annotate(f"{h}x{w}", (w, h), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axes.set(
        xlabel="width (cells)", ylabel="height (cells)", xlim=(0, grid + 1), ylim=(0, grid + 1)
    )
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return Path(path)
