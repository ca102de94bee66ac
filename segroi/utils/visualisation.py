"""Pictures of instances and of training curves."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TARGET_SIDE = 480  # small pictures are enlarged to about this many px, so that names can be read
_GOLDEN = 0.618034
_WHOLE = ("loss", "total_loss")  # what the hosts call the sum of the losses


def draw_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    names: Sequence[str],
    masks: np.ndarray | None = None,
    scores: Sequence[float] | None = None,
    colours: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw masks, boxes and names over a picture.

    Args:
        image: ``uint8 [H, W, 3]`` RGB.
        boxes: ``[N, 4]`` xyxy px.
        names: what to write at each instance.
        masks: ``bool [N, H, W]``, or None.
        scores: 0..1 to write beside the names, or None.
        colours: number of the colour of each instance; default: its place.

    Returns:
        ``uint8 [h, w, 3]``, enlarged by a whole factor where the picture is small.
    """
    factor = max(1, round(_TARGET_SIDE / max(image.shape[:2])))
    palette = [colour(i) for i in (range(len(names)) if colours is None else colours)]
    canvas = _enlarge(image, factor).astype(np.float32)
    for mask, tint in zip(masks if masks is not None else (), palette):
        _tint(canvas, _enlarge(mask.astype(np.uint8), factor) > 0, tint)
    picture = Image.fromarray(canvas.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    texts = [n if scores is None else f"{n} {scores[i]:.2f}" for i, n in enumerate(names)]
    for box, text, tint in zip(boxes, texts, palette):
        x0, y0, x1, y1 = (float(v) * factor for v in box)
        pen.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=tint, width=2)
        _label(pen, (x0, y0), text, tint, font, picture.size)
    return np.asarray(picture)


def draw_classes(image: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw the classes of pixels over a picture; a class named "background" stays as it is.

    Args:
        image: ``uint8 [H, W, 3]`` RGB.
        labels: class of each pixel, ``uint8 [H, W]``; 255 is none, and black.
        names: of the classes; those that the picture has are listed in its corner.

    Returns:
        ``uint8 [h, w, 3]``, enlarged by a whole factor where the picture is small.
    """
    factor = max(1, round(_TARGET_SIDE / max(image.shape[:2])))
    canvas = _enlarge(image, factor).astype(np.float32)
    labels = _enlarge(labels, factor)
    present = [int(c) for c in np.unique(labels) if c < len(names) and names[c] != "background"]
    for number in present:
        _tint(canvas, labels == number, colour(number))
    canvas[labels == 255] = 0
    picture = Image.fromarray(canvas.astype(np.uint8))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for row, number in enumerate(present):
        _label(pen, (2, 20 * (row + 1)), names[number], colour(number), font, picture.size)
    return np.asarray(picture)


def colour(index: int) -> tuple[int, int, int]:
    """A strong colour; neighbouring numbers get colours far apart."""
    hue = (index * _GOLDEN + 0.05) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if index % 2 else 0.65, 1.0)
    return int(red * 255), int(green * 255), int(blue * 255)


def beside(pictures: Sequence[np.ndarray], titles: Sequence[str], gap: int = 8) -> np.ndarray:
    """Pictures of one height in a row on white, a title over each."""
    head = 24
    height = max(p.shape[0] for p in pictures) + head
    width = sum(p.shape[1] for p in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    left = 0
    for picture, title in zip(pictures, titles):
        pen.text((left + 2, 3), title, fill="black", font=font)
        canvas.paste(Image.fromarray(picture), (left, head))
        left += picture.shape[1] + gap
    return np.asarray(canvas)


def save_picture(path: str | Path, picture: np.ndarray) -> Path:
    """Write ``uint8 [H, W, 3]`` RGB as an image file; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def draw_curves(path: str | Path, rows: Sequence[Mapping[str, float]], title: str) -> Path:
    """Loss curves, raw and smoothed, over the iterations.

    Args:
        path: PNG to write.
        rows: one a logged iteration: ``iteration`` and the losses by name.
        title: over the picture.
    """
    figure, axes = _figure()
    names = [n for n in rows[-1] if n.startswith(("loss", "total_loss"))] if rows else []
    axes.set_prop_cycle(color=_colours(len(names)))
    for name in names:
        whole = name in _WHOLE
        _plot(axes, rows, name, "sum" if whole else name.removeprefix("loss_"), whole)
    axes.set(xlabel="iteration", ylabel="loss", title=title)
    wholes = [row[n] for row in rows for n in _WHOLE if n in row]
    return _save_curves(path, figure, axes, wholes)


def draw_run_curves(path: str | Path, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Path:
    """The sums of the losses of several runs in one picture.

    Args:
        path: PNG to write.
        runs: for each run's name its logged iterations, as ``draw_curves`` takes them.
    """
    figure, axes = _figure()
    wholes = []
    for name, rows in runs.items():
        whole = next((n for n in _WHOLE if rows and n in rows[-1]), "")
        if whole:
            _plot(axes, rows, whole, name, True)
            wholes += [row[whole] for row in rows if whole in row]
    axes.set(xlabel="iteration", ylabel="loss", title="sum of the losses")
    return _save_curves(path, figure, axes, wholes)


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _colours(count: int) -> Sequence[tuple[float, float, float]]:
    """As many colours as there are lines, as far as they can be told apart."""
    from matplotlib import colormaps

    return colormaps["tab10" if count <= 10 else "tab20"].colors


def _plot(
    axes: Axes, rows: Sequence[Mapping[str, float]], name: str, label: str, strong: bool
) -> None:
    points = [(row["iteration"], row[name]) for row in rows if name in row]
    steps, values = np.array(points, np.float64).T
    (line,) = axes.plot(steps, _smooth(values), lw=2.2 if strong else 1.3, label=label)
    axes.plot(steps, values, lw=0.6, alpha=0.25, color=line.get_color())


def _save_curves(path: str | Path, figure: Figure, axes: Axes, wholes: Sequence[float]) -> Path:
    axes.set_ylim(0, 1.15 * np.percentile(wholes, 97) if wholes else None)  # not the first spike
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(ncols=2, fontsize=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    how = cv2.INTER_NEAREST if image.ndim == 2 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)


def _tint(canvas: np.ndarray, mask: np.ndarray, tint: tuple[int, int, int]) -> None:
    """Colour the mask of a float picture in place, its rim fully."""
    canvas[mask] = 0.5 * canvas[mask] + 0.5 * np.array(tint, np.float32)
    rims, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for rim in rims:
        canvas[rim[:, 0, 1], rim[:, 0, 0]] = tint


def _label(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    tint: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """Text on its colour, above the box, or inside where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom + 3
    x = min(max(corner[0], 0), max(size[0] - width, 0))
    y = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=tint)
    bright = 0.3 * tint[0] + 0.6 * tint[1] + 0.1 * tint[2] > 110
    pen.text((x + 2, y + 1), text, fill="black" if bright else "white", font=font)


def _smooth(values: np.ndarray, share: float = 0.04) -> np.ndarray:
    """Mean over the last ``share`` of the curve, over less at its start."""
    window = max(1, int(len(values) * share))
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)
