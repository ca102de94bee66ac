"""Read images of every common kind as 8-bit RGB, the right way up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segroi.utils.suggest import UsageError, existing_file, existing_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")


def load_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image upright (EXIF); grey, palette, CMYK, alpha and 16-bit are made 8-bit RGB.

    Args:
        path: file to read.
        size: (H, W) px that the annotations speak of. Where it fits the pixels as they are stored
            and not as they are shown, the EXIF orientation is left out.

    Returns:
        ``uint8 [H, W, 3]``.

    Raises:
        UsageError: the file is missing, damaged, no image, too large, or not of ``size``.
    """
    path = existing_file(path, "image")
    try:
        with Image.open(path) as stored:
            upright = ImageOps.exif_transpose(stored)
            picture = upright
            if size is not None and (upright.height, upright.width) != tuple(size):
                picture = stored
            pixels = _rgb(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"image {path} cannot be read: {error}") from error
    if size is not None and pixels.shape[:2] != tuple(size):
        got = f"{pixels.shape[0]}x{pixels.shape[1]}"
        raise UsageError(
            f"image {path}: annotated as {size[0]}x{size[1]} (HxW), the file has {got}"
        )
    return pixels


def list_images(path: str | Path) -> list[Path]:
    """The image itself, or the images of a folder in the order of their names."""
    path = Path(path)
    if path.is_file():
        return [path]
    folder = existing_folder(path, "image or folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"folder {path} holds no image ({', '.join(SUFFIXES)})")
    return found


def _rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode in SIXTEEN_BIT:
        grey = (np.asarray(picture, np.float32) / 257.0).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(picture.convert("RGB"))
