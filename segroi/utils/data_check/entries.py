"""Images and categories of an annotation file, before any image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from segroi.utils.data_check.findings import Findings
from segroi.utils.safe_files import PathError, inside

RARE = 10  # instances
_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "image": {"id": int, "file_name": str, "height": (int, float), "width": (int, float)},
    "category": {"id": int, "name": str},
    "annotation": {"id": int, "image_id": int, "category_id": int},
}

Entries = list[tuple[int, dict[str, Any]]]  # position in the file's list, entry


def sound_entries(kind: str, entries: Sequence[Any], findings: Findings) -> Entries:
    """The entries of a list that have the keys and types of their kind."""
    kept = []
    for position, entry in enumerate(entries):
        wrong = _wrong(entry, _KEYS[kind])
        if wrong:
            name = entry.get("id") if isinstance(entry, dict) else None
            number = name if isinstance(name, int | str) else f"#{position}"
            findings.add("entry-broken", wrong, kind, number, position)
        else:
            kept.append((position, entry))
    return kept


def check_categories(entries: Entries, findings: Findings) -> dict[int, str]:
    """Look at the categories; returns id -> name."""
    if not entries:
        findings.add("category-none", "no category is listed")
    names: dict[int, str] = {}
    for position, entry in entries:
        number, name = entry["id"], entry["name"]
        if number in names:
            what = f"{name!r} has the id of {names[number]!r}"
            findings.add("category-duplicate-id", what, "category", number, position)
            continue
        if name in names.values():
            findings.add("category-duplicate-name", f"{name!r} again", "category", number)
        names[number] = name
    if names and max(names) - min(names) + 1 > len(names):
        missing = max(names) - min(names) + 1 - len(names)
        what = f"{len(names)} ids from {min(names)} to {max(names)}, {missing} missing"
        findings.add("category-gaps", what)
    return names


def check_use(names: Mapping[int, str], annotations: Entries, findings: Findings) -> None:
    """Categories without instances, or with very few."""
    used = Counter(a["category_id"] for _, a in annotations if not a.get("iscrowd"))
    for number, name in names.items():
        if not used[number]:
            findings.add("category-unused", f"{name!r} has no instance", "category", number)
        elif used[number] < RARE:
            what = f"{name!r} has {used[number]} instances"
            findings.add("category-rare", what, "category", number)


def check_images(entries: Entries, folder: str, findings: Findings) -> dict[int, dict[str, Any]]:
    """Look at the list of images; returns those with a usable size and path, by id."""
    if not entries:
        findings.add("image-none", "no image is listed")
    if len(entries) == 1:
        findings.add("image-single", "one image in all")
    images: dict[int, dict[str, Any]] = {}
    files: dict[str, int] = {}
    for position, entry in entries:
        number, name = entry["id"], entry["file_name"]
        if number in images:
            what = f"{name} has the id of {images[number]['file_name']}"
            findings.add("image-duplicate-id", what, "image", number, position)
            continue
        if name in files:
            what = f"{name} is image {files[name]} too"
            findings.add("image-duplicate-file", what, "image", number, position)
        files.setdefault(name, number)
        sides = (entry["height"], entry["width"])
        if any(side < 1 or side != int(side) for side in sides):
            what = f"{name} has height {sides[0]} and width {sides[1]}"
            findings.add("image-size-field", what, "image", number, position)
        try:
            inside(folder, name)
        except PathError as error:
            findings.add("image-path", str(error), "image", number, position)
        images[number] = entry
    return images


def _wrong(entry: Any, keys: Mapping[str, type | tuple[type, ...]]) -> str:
    if not isinstance(entry, dict):
        return f"is {type(entry).__name__}, no object"
    missing = [key for key in keys if key not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    for key, types in keys.items():
        value = entry[key]
        # NaN is no size: it is told as the broken number that it is.
        if not isinstance(value, types) or isinstance(value, bool) or value != value:
            return f"{key} is {value!r}"
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            return f"{key} is {value!r}"
    return ""
