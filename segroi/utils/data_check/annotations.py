"""Annotations of a file: their references, boxes and masks.

Legend: N annotations whose image is known; boxes are COCO's [x, y, width, height] in px.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from segroi.utils.data_check.boxes import check_boxes
from segroi.utils.data_check.entries import Entries
from segroi.utils.data_check.findings import Findings
from segroi.utils.data_check.masks import check_masks

MANY = 500  # instances in an image


def check_annotations(
    entries: Entries,
    images: Mapping[int, Mapping[str, Any]],
    names: Mapping[int, str],
    findings: Findings,
    crossings: bool,
) -> None:
    """Look at the annotations.

    Args:
        entries: those with the keys and types that they need.
        images: the images by id.
        names: the categories by id.
        findings: where to note what is wrong.
        crossings: look for polygons that cross themselves too (slow).
    """
    known = list(_known(entries, images, names, findings))
    _check_counts(known, images, findings)
    sizes = np.array(
        [(images[a["image_id"]]["width"], images[a["image_id"]]["height"]) for _, a in known],
        dtype=np.float64,
    ).reshape(-1, 2)
    bounds = check_masks(known, sizes, findings, crossings)
    check_boxes(known, sizes, bounds, findings)
    for position, annotation in known:
        if not isinstance(annotation.get("area"), int | float):
            what = f"area is {annotation.get('area')!r}"
            findings.add("annotation-no-area", what, "annotation", annotation["id"], position)


def _known(
    entries: Entries,
    images: Mapping[int, Any],
    names: Mapping[int, str],
    findings: Findings,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The annotations of images that there are."""
    seen: set[int] = set()
    for position, annotation in entries:
        number, image, category = (annotation[k] for k in ("id", "image_id", "category_id"))
        if number in seen:
            what = f"a second annotation with this id, on image {image}"
            findings.add("annotation-duplicate-id", what, "annotation", number, position)
        seen.add(number)
        if category not in names:
            what = f"category {category} is not listed"
            findings.add("annotation-category", what, "annotation", number, position)
        if image not in images:
            what = f"image {image} is not listed"
            findings.add("annotation-image", what, "annotation", number, position)
        else:
            yield position, annotation


def _check_counts(known: Entries, images: Mapping[int, Mapping], findings: Findings) -> None:
    if images and not known:
        findings.add("annotation-none", f"no annotation in {len(images)} images")
    elif known and all(a.get("iscrowd") for _, a in known):
        findings.add("annotation-crowd-only", f"all {len(known)} annotations are crowds")
    instances = Counter(annotation["image_id"] for _, annotation in known)
    for number, image in images.items():
        if instances[number] > MANY:
            masks = instances[number] * image["height"] * image["width"] / 2**30
            what = f"{image['file_name']} has {instances[number]} ({masks:.1f} GiB of masks)"
            findings.add("image-many-instances", what, "image", number)
        elif not instances[number] and known:
            what = f"{image['file_name']} has none"
            findings.add("image-no-annotations", what, "image", number)
