"""Image files: whether they are there, can be read, and have the size that was annotated."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from segroi.utils.data_check.findings import Findings
from segroi.utils.images import SIXTEEN_BIT
from segroi.utils.safe_files import PathError, inside

TINY = 8  # px
_ORIENTATION = 0x0112  # EXIF tag
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
Track = Callable[[Iterable, str], Iterable]


@dataclass
class Picture:
    """What a file says of itself; ``fault`` is a code of the catalogue."""

    fault: str = ""
    what: str = ""
    size: tuple[int, int] = (0, 0)  # (width, height) as stored
    mode: str = ""
    orientation: int = 1
    animated: bool = False


def check_pictures(
    images: Mapping[int, Mapping[str, Any]],
    folder: Path,
    findings: Findings,
    sample: int | None = None,
    track: Track = lambda items, title: items,
) -> None:
    """Look at the files of all images.

    Args:
        images: entries of the annotation file by id.
        folder: what their names are relative to.
        findings: where to note what is wrong.
        sample: open the headers of about so many images, evenly spread; None: read every image
            whole. Whether files exist is looked at in any case.
        track: shows progress over a sized iterable.
    """
    every = 1 if sample is None else max(1, len(images) // max(sample, 1))
    jobs = [(number, image, i % every == 0) for i, (number, image) in enumerate(images.items())]

    def look(job: tuple[int, Mapping[str, Any], bool]) -> Picture | None:
        try:
            path = inside(folder, job[1]["file_name"])
        except PathError:
            return None  # told with the list of images
        return look_at(path, opened=job[2], whole=sample is None)

    known = _Names(folder)
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool, _no_warnings():
        found = pool.map(look, jobs, chunksize=16)
        for (number, image, _), picture in zip(track(jobs, "images"), found):
            if picture is not None:
                _judge(number, image, picture, known, findings)


def look_at(path: Path, opened: bool = True, whole: bool = True) -> Picture:
    """Look at one file.

    Args:
        path: the file.
        opened: read its header.
        whole: decode its pixels too, which alone shows that none are missing.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return Picture("image-missing", "no such file")
    if size == 0:
        return Picture("image-empty-file", "0 bytes")
    if not opened:
        return Picture()
    try:
        with Image.open(path) as image:
            picture = Picture(
                size=image.size,
                mode=image.mode,
                orientation=image.getexif().get(_ORIENTATION, 1),
                # Telephones put a preview behind the picture (MPO), which is no animation.
                animated=image.format != "MPO" and getattr(image, "n_frames", 1) > 1,
            )
            if whole and image.width * image.height <= _limit():
                image.load()
        return picture
    except PermissionError:
        return Picture("image-permission", "may not be read")
    except Image.DecompressionBombError as error:
        return Picture("image-huge", str(error).partition(",")[0])
    except UnidentifiedImageError:
        return Picture("image-damaged", "is no image of a known kind")
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        return Picture("image-truncated" if cut else "image-damaged", str(error))


def _judge(
    number: int, image: Mapping[str, Any], picture: Picture, known: _Names, findings: Findings
) -> None:
    name = image["file_name"]

    def tell(code: str, what: str) -> None:
        findings.add(code, f"{name}: {what}", "image", number)

    if picture.fault == "image-missing":
        tell(picture.fault, f"{picture.what}{known.hint(name)}")
    elif picture.fault:
        tell(picture.fault, picture.what)
    if picture.size == (0, 0):
        return
    width, height = picture.size
    _judge_size((image["width"], image["height"]), picture, tell)
    if min(width, height) < TINY:
        tell("image-tiny", f"{width}x{height} px")
    if width * height > _limit():
        tell("image-large", f"{width}x{height} px")
    if picture.mode in SIXTEEN_BIT or picture.mode == "F":
        tell("image-16-bit", f"mode {picture.mode} is scaled to 8 bit")
    elif picture.mode == "CMYK":
        tell("image-cmyk", "CMYK")
    elif picture.mode == "P":
        tell("image-palette", "palette")
    elif picture.mode in _ALPHA:
        tell("image-alpha", f"mode {picture.mode}")
    if picture.animated:
        tell("image-animated", "several frames")


def _judge_size(
    annotated: tuple[int, int], picture: Picture, tell: Callable[[str, str], None]
) -> None:
    stored = picture.size
    upright = stored[::-1] if picture.orientation >= 5 else stored
    said = f"annotated as {annotated[0]:.0f}x{annotated[1]:.0f} (width x height)"
    if tuple(annotated) == upright:
        return
    if tuple(annotated) == stored:
        tell("image-exif", f"{said}, upright by EXIF it is {upright[0]}x{upright[1]}")
    else:
        tell("image-size", f"{said}, the file has {upright[0]}x{upright[1]}")


class _Names:
    """Names in the image folder, to guess what a missing file may be called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stems: dict[str, str] | None = None

    def hint(self, name: str) -> str:
        """ "; there is OTHER", or ""."""
        if self.stems is None:
            entries = (e.name for e in os.scandir(self.folder))
            self.stems = {os.path.splitext(n)[0].lower(): n for n in entries}
        near = self.stems.get(os.path.splitext(os.path.basename(name))[0].lower())
        return f"; {self.folder} has {near}" if near and near != name else ""


class _no_warnings(warnings.catch_warnings):  # noqa: N801
    """Pillow warns of large images and odd metadata; both are judged here."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


def _limit() -> float:
    return Image.MAX_IMAGE_PIXELS or float("inf")
