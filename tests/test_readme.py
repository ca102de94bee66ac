"""What the README shows runs."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def python_block(heading):
    section = README.read_text().split(f"## {heading}\n", 1)[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


def test_operators():
    names = {}
    exec(python_block("The operators"), names)
    assert names["boxes"].shape == names["groie"].shape == (2, 256, 7, 7)
    assert names["crops"].shape == (1, 256, 14, 14)
    assert names["cells"].tolist() == [[0, 1, 10, 7], [0, 0, 3, 2]]
    assert names["stacks"][0].shape == (2, 256, 10, 12)


def test_torchvision():
    image = torch.rand(3, 64, 64)
    target = {
        "boxes": torch.tensor([[8.0, 8.0, 40.0, 50.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 64, 64, dtype=torch.uint8),
    }
    names = {"images": [image], "targets": [target]}
    exec(python_block("From torchvision"), names)
    assert names["losses"]["loss_mask"].isfinite()
    assert set(names["detections"][0]) >= {"boxes", "labels", "scores", "masks"}
