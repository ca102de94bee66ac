"""Picture of how CoMask finds one box: the cells' boxes and their average beside the mask."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

_AVERAGE = "#e6007e"


def draw_dense_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    weights: np.ndarray,
    average: np.ndarray,
    mask: np.ndarray,
    threshold: float = 0.5,
    title: str = "",
) -> np.ndarray:
    """Draw the dense boxes of one instance, coloured by weight, beside its average and mask.

    Boxes of cells that take no part in the average are dotted.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        boxes: ``[P, 4]`` xyxy px of the image.
        weights: ``[P]`` in [0, 1], the cells' foreground confidence.
        average: ``[4]`` xyxy px.
        mask: bool ``[H, W]``, the final mask.
        threshold: the weight that a cell must exceed to take part.
        title: text above the picture.

    Returns:
        uint8 RGB ``[h, w, 3]``.
    """
    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    colours = colormaps["viridis"]
    left.imshow(image)
    for index in np.argsort(weights):  # the confident ones on top
        style = "-" if weights[index] > threshold else ":"
        _draw_box(left, boxes[index], colours(weights[index]), style, 0.8)
    _draw_box(left, average, _AVERAGE, "-", 2.5)
    left.set_title(f"{len(boxes)} boxes of the cells, {(weights > threshold).sum()} take part")
    bar = figure.colorbar(
        ScalarMappable(cmap=colours), ax=(left, right), location="bottom", aspect=60, shrink=0.6
    )
    bar.ax.tick_params(labelsize=8)
    bar.set_label("foreground confidence of the cell")
    shown = image.astype(float)
    shown[mask] = 0.5 * shown[mask] + 0.5 * np.array([0, 200, 255])
    right.imshow(shown.astype(np.uint8))
    _draw_box(right, average, _AVERAGE, "-", 2.5)
    right.set_title("averaged box and final mask")
    for axes in (left, right):
        _zoom(axes, np.vstack((boxes, average)), image.shape)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _zoom(axes: Axes, boxes: np.ndarray, shape: tuple[int, ...]) -> None:
    """Show the surroundings of the boxes."""
    near, far = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    margin = 0.15 * (far - near).max()
    axes.set_xlim(max(near[0] - margin, -0.5), min(far[0] + margin, shape[1] - 0.5))
    axes.set_ylim(min(far[1] + margin, shape[0] - 0.5), max(near[1] - margin, -0.5))
    axes.set_axis_off()


def _draw_box(axes: Axes, box: np.ndarray, colour: object, style: str, width: float) -> None:
    (x0, y0), (x1, y1) = box[:2], box[2:]
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, ls=style, lw=width))
