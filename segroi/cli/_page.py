"""The page of ``segroi serve``: an image in, drawn instances and their table out."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from segroi.utils.suggest import UsageError

MAX_PIXELS = 32_000_000  # of an image; larger ones are refused, not shrunk in silence
HEAD = ["name", "score", "x0", "y0", "x1", "y1"]


def import_gradio() -> Any:
    """The gradio package, told to call nobody."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise UsageError('segroi serve needs gradio: pip install "segroi[serve]"') from error


def predictor(
    model: nn.Module, categories: Sequence[dict]
) -> Callable[[np.ndarray | None, float], tuple[np.ndarray, list[list]]]:
    """What the page calls: pixels ``uint8 [H, W, 3]`` and a threshold to a picture and its rows."""
    from segroi.tv.evaluate import detect
    from segroi.tv.predict import above
    from segroi.utils.visualisation import draw_instances

    def predict(pixels: np.ndarray | None, threshold: float) -> tuple[np.ndarray, list[list]]:
        if pixels is None:
            raise UsageError("drop an image first")
        height, width = pixels.shape[:2]
        if height * width > MAX_PIXELS:
            raise UsageError(
                f"{width} x {height} px are more than the {MAX_PIXELS // 10**6} megapixels of this "
                "page: segroi predict takes them"
            )
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
        found = above(detect(model, [image])[0], threshold)
        names = [categories[label - 1]["name"] for label in found["labels"].tolist()]
        scores, boxes = found["scores"].tolist(), found["boxes"]
        masks = found["masks"].numpy() if "masks" in found else None
        picture = draw_instances(pixels, boxes.numpy(), names, masks, scores)
        rows = zip(names, scores, boxes.tolist())
        return picture, [[n, round(s, 3), *(round(v, 1) for v in b)] for n, s, b in rows]

    return predict


def build_page(model: nn.Module, categories: Sequence[dict]) -> Any:
    """The page as gradio's ``Blocks``, not yet launched.

    Raises:
        UsageError: gradio is not installed.
    """
    gradio = import_gradio()
    predict = predictor(model, categories)

    def answer(pixels: np.ndarray | None, threshold: float) -> tuple[np.ndarray, list[list]]:
        try:
            return predict(pixels, threshold)
        except UsageError as error:
            raise gradio.Error(str(error)) from error

    with gradio.Blocks(title="segroi", analytics_enabled=False) as page:
        with gradio.Row():
            image = gradio.Image(label="image", sources=["upload", "clipboard"], type="numpy")
            picture = gradio.Image(
                label="instances",
                type="numpy",
                interactive=False,
                buttons=["download", "fullscreen"],  # and no "share", which uploads
            )
        threshold = gradio.Slider(0, 1, value=0.5, step=0.01, label="lowest score that is shown")
        button = gradio.Button("find", variant="primary")
        table = gradio.Dataframe(headers=HEAD, label="px", interactive=False)
        for event in (button.click, threshold.release, image.upload):
            event(answer, [image, threshold], [picture, table], concurrency_limit=1)
    return page
