"""A copy of an annotation file without what can be mended mechanically."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segroi.utils.data_check.content import read_content
from segroi.utils.data_check.findings import Findings
from segroi.utils.data_check.geometry import Polygons, rle_bounds
from segroi.utils.data_check.masks import polygon_fault, rle_fault
from segroi.utils.data_check.pictures import look_at
from segroi.utils.safe_files import PathError, atomic_write, inside
from segroi.utils.suggest import UsageError


def repair(
    annotations: str | Path, images: str | Path, output: str | Path, findings: Findings
) -> dict[str, int]:
    """Write a copy of an annotation file that passes the check, as far as rules can make it.

    Left out are broken entries, images that cannot be read or do not lie under ``images``,
    annotations of unknown images or categories, and masks that cannot be decoded; sizes are taken
    from the files, boxes from the masks where a box is broken or is given by corners, duplicate
    annotation ids are numbered anew, missing areas computed. Nothing is drawn: what needs eyes is
    left as it is.

    Args:
        annotations: the file.
        images: its image folder.
        output: file to write, another one.
        findings: what ``check_dataset`` said of the file.

    Returns:
        How many images and annotations were kept and left out.

    Raises:
        UsageError: the text itself is broken, or ``output`` is the file.
    """
    if Path(output).resolve() == Path(annotations).resolve():
        raise UsageError("--fix writes a copy: give it another name than the file's own")
    content = read_content(Path(annotations), Findings(""))
    if content is None:
        raise UsageError(f"{annotations} cannot be mended: its text is broken")
    counts = {k: len(content[k]) for k in ("images", "annotations")}
    categories = _first_of_each(content["categories"], ("id", "name"))
    kept = _images(content["images"], Path(images))
    known = {image["id"]: image for image in kept}
    mended = list(
        _annotations(
            content["annotations"],
            known,
            {c["id"] for c in categories},
            bool(findings.counts["box-xyxy"]),
        )
    )
    whole = {**content, "images": kept, "annotations": mended, "categories": categories}
    with atomic_write(output) as file:
        file.write(json.dumps(_finite(whole)).encode())
    return {
        "images": len(kept),
        "images_left_out": counts["images"] - len(kept),
        "annotations": len(mended),
        "annotations_left_out": counts["annotations"] - len(mended),
    }


def _first_of_each(entries: Iterable[Any], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    kept: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        if isinstance(entry, dict) and all(key in entry for key in keys):
            if isinstance(entry["id"], int):
                kept.setdefault(entry["id"], entry)
    return list(kept.values())


def _images(entries: Iterable[Any], folder: Path) -> list[dict[str, Any]]:
    kept = []
    for entry in _first_of_each(entries, ("id", "file_name")):
        try:
            picture = look_at(inside(folder, str(entry["file_name"])))
        except PathError:
            continue
        if picture.fault or picture.size == (0, 0):
            continue
        stored = picture.size
        upright = stored[::-1] if picture.orientation >= 5 else stored
        said = (entry.get("width"), entry.get("height"))
        width, height = said if said in (upright, stored) else upright
        kept.append({**entry, "width": width, "height": height})
    return kept


def _annotations(
    entries: Iterable[Any], images: dict[int, dict], categories: set[int], by_corners: bool
) -> Iterable[dict[str, Any]]:
    known = [e for e in entries if isinstance(e, dict) and e.get("image_id") in images]
    used: set[Any] = set()
    spare = max((e["id"] for e in known if isinstance(e.get("id"), int)), default=0)
    for entry in known:
        if entry.get("category_id") not in categories:
            continue
        mended = _mend(entry, images[entry["image_id"]], by_corners)
        if mended is None:
            continue
        if not isinstance(mended.get("id"), int) or mended["id"] in used:
            spare += 1
            mended["id"] = spare
        used.add(mended["id"])
        yield mended


def _mend(entry: dict[str, Any], image: dict[str, Any], by_corners: bool) -> dict | None:
    """The annotation with a mask and a box that can be used; None where there is nothing."""
    size = (image["width"], image["height"])
    mask, bounds, area = entry.get("segmentation"), None, None
    if isinstance(mask, list):
        mask = [p for p in mask if not polygon_fault(p)[0] and all(map(_is_finite, p))]
        polygons = Polygons()
        for polygon in mask:
            polygons.add(0, polygon)
        if mask:
            each = polygons.bounds()
            bounds = [*each[:, :2].min(0).tolist(), *each[:, 2:].max(0).tolist()]
            area = float(polygons.areas().sum())
    elif isinstance(mask, dict) and rle_fault(mask, size)[0] == "":
        bounds = rle_bounds([mask], [size])[0].tolist()
    else:
        mask = []
    box = _box(entry.get("bbox"), bounds, size, by_corners)
    if box is None:
        return None
    given = entry.get("area")
    if not _is_finite(given):
        given = area if area is not None else box[2] * box[3]
    return {**entry, "segmentation": mask, "bbox": box, "area": given}


def _box(
    given: Any, bounds: list[float] | None, size: tuple[int, int], by_corners: bool
) -> list[float] | None:
    """The box as [x, y, width, height] within the image; None where none can be had."""
    readings = []
    if isinstance(given, list) and len(given) == 4 and all(map(_is_finite, given)):
        x, y, a, b = given
        readings.append([x, y, a, b] if by_corners else [x, y, x + a, y + b])
    if bounds is not None:
        readings.append(bounds)
    for x0, y0, x1, y1 in readings:
        x0, x1 = (min(max(x, 0), size[0]) for x in (x0, x1))
        y0, y1 = (min(max(y, 0), size[1]) for y in (y0, y1))
        if x1 > x0 and y1 > y0:
            return [x0, y0, x1 - x0, y1 - y0]
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _finite(value: Any) -> Any:
    """The same data with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
