"""The scripts of projects/LowCostSemSeg run, on a few pixels."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "projects/LowCostSemSeg"


@pytest.fixture
def coco(tmp_path):
    """Two persons in one photograph."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((80, 80, 3), 90, np.uint8))
    annotations = []
    for number, x in ((1, 10), (2, 45)):
        polygon = [x, 10, x + 20, 10, x + 20, 60, x, 60]
        box = {"bbox": [x, 10, 20, 50], "area": 1000, "segmentation": [polygon]}
        annotations.append({"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, **box})
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 80, "width": 80}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(data))
    return tmp_path


def run(script, words, monkeypatch):
    monkeypatch.setattr("sys.argv", [script, *words.split()])
    runpy.run_path(str(FOLDER / script), run_name="__main__")


def test_person_table(coco, monkeypatch):
    words = f"--train-json {coco}/coco.json --val-json {coco}/coco.json --images {coco} "
    words += f"--output {coco}/out --size 40 24 --width 0.25 --steps 2 --batch 2 --device cpu "
    words += "--decoders fcn16 stride8 --backgrounds 0.05 --rates 1 5"
    run("person_table.py", words, monkeypatch)
    values = json.loads((coco / "out/table.json").read_text())["person_iou"]
    assert set(values) == {"FCN16, background 5 %", "output stride 8, background 5 %"}
    for row in values.values():
        assert row[1] is None and 0 <= row[0] <= 100 and 0 <= row[2] <= 100
    assert len(list((coco / "out/pictures").glob("*.png"))) == 4
    assert len(list((coco / "out/weights").glob("*.pth"))) == 4
