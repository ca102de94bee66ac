from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_run import TINY, annotation, write

from segroi.tv.config import TrainConfig


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """Six images of red (category 3) and green (category 40) squares; the last one is empty."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 7):
        width = 80 if number % 2 else 64
        picture = Image.fromarray(rng.integers(90, 140, (64, width, 3), np.uint8))
        pen = ImageDraw.Draw(picture)
        for category, tint in ((3, (230, 20, 20)), (40, (20, 220, 30))) if number < 6 else ():
            x, y = (int(v) for v in rng.integers(2, 34, 2))
            side = int(rng.integers(16, 28))
            pen.rectangle((x, y, x + side - 1, y + side - 1), fill=tint)
            box = [float(v) for v in (x, y, side, side)]
            annotations.append(annotation(len(annotations) + 1, number, category, box))
        name = f"{number}.png"
        picture.save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "height": 64, "width": width})
    categories = [{"id": 40, "name": "green"}, {"id": 3, "name": "red"}]
    write(folder / "data.json", images, annotations, categories)
    return folder


@pytest.fixture
def config(squares, tmp_path) -> TrainConfig:
    return TrainConfig(
        model="mask_rcnn_groie",
        model_args=dict(TINY),
        data=str(squares / "data.json"),
        images=str(squares / "images"),
        output=str(tmp_path / "run"),
        iterations=6,
        batch_size=2,
        optimizer="adamw",
        lr=2e-3,
        warmup=2,
        workers=0,
        checkpoint_every=2,
        device="cpu",
    )
