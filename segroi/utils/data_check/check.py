"""The whole check of an annotation file, and of a training and a validation file together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from segroi.utils.data_check.annotations import check_annotations
from segroi.utils.data_check.content import read_content
from segroi.utils.data_check.entries import (
    check_categories,
    check_images,
    check_use,
    sound_entries,
)
from segroi.utils.data_check.findings import Findings
from segroi.utils.data_check.pictures import Track, check_pictures
from segroi.utils.suggest import existing_file, existing_folder

SAMPLE = 64  # images that the quick check opens


def check_dataset(
    annotations: str | Path,
    images: str | Path,
    quick: bool = False,
    track: Track = lambda items, title: items,
) -> Findings:
    """Look for everything that is wrong with a COCO-format file and its images.

    Args:
        annotations: the file.
        images: folder that its file names are relative to.
        quick: the part that takes seconds: whole text, all entries, boxes and masks, whether each
            image file is there, the headers of 64 of them. Else every image is decoded, and
            polygons that cross themselves are found.
        track: shows progress over a sized iterable.

    Returns:
        What was found; nothing is raised for faults of the data.

    Raises:
        UsageError: the file or the folder does not exist.
    """
    path = existing_file(annotations, "annotation file")
    folder = existing_folder(images, "image folder")
    findings = Findings(str(annotations))
    content = read_content(path, findings)
    if content is None:
        return findings
    categories = sound_entries("category", content["categories"], findings)
    names = check_categories(categories, findings)
    listed = check_images(
        sound_entries("image", content["images"], findings), str(folder), findings
    )
    entries = sound_entries("annotation", content["annotations"], findings)
    check_annotations(entries, listed, names, findings, crossings=not quick)
    check_use(names, entries, findings)
    check_pictures(listed, folder, findings, SAMPLE if quick else None, track)
    return findings


def check_split(
    training: tuple[str | Path, str | Path], validation: tuple[str | Path, str | Path] | None
) -> Findings:
    """Compare a training with a validation file.

    Args:
        training: annotations and image folder.
        validation: the same; None: there is none.
    """
    if validation is None:
        findings = Findings(str(training[0]))
        findings.add("split-none", "no validation images: nobody will know how well it works")
        return findings
    findings = Findings(str(validation[0]))
    ours, theirs = (_summary(annotations, findings) for annotations, _ in (training, validation))
    if ours is None or theirs is None:
        return findings  # told by the check of that file
    different = sorted(ours["categories"].items() ^ theirs["categories"].items())
    if different:
        what = f"differ in {', '.join(f'{number}={name}' for number, name in different[:6])}"
        findings.add("split-categories", what)
    folders = [os.path.realpath(folder) for _, folder in (training, validation)]
    if folders[0] == folders[1]:
        for name in sorted(ours["files"] & theirs["files"]):
            findings.add("split-overlap", f"{name} is in both", "image", theirs["ids"][name])
    return findings


def _summary(annotations: str | Path, findings: Findings) -> dict[str, Any] | None:
    path = existing_file(annotations, "annotation file")
    content = read_content(path, Findings(findings.file))
    if content is None:
        return None
    images = sound_entries("image", content["images"], Findings(""))
    categories = sound_entries("category", content["categories"], Findings(""))
    return {
        "files": {entry["file_name"] for _, entry in images},
        "ids": {entry["file_name"]: entry["id"] for _, entry in images},
        "categories": {entry["id"]: entry["name"] for _, entry in categories},
    }
