"""The scripts of projects/LowCostSemSeg run, on a few pixels."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from segroi.modeling.semantic.low_cost import build_low_cost_segmenter

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


def test_person_ap(coco, monkeypatch):
    """A perfect detector: annotated masks score 100, a person that fills its box, too."""
    boxes = [[10, 10, 20, 50], [45, 10, 20, 50]]
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    half = [[10, 10, 20, 10, 20, 60, 10, 60], [45, 10, 55, 10, 55, 60, 45, 60]]
    for family in ("single_branch", "multi_shape"):
        folder = coco / f"detector/{family}-0"
        folder.mkdir(parents=True)
        masks = mask_utils.frPyObjects(half, 80, 80)
        codes = [{**m, "counts": m["counts"].decode()} for m in masks]
        text = json.dumps([{**d, "segmentation": c} for d, c in zip(found, codes)])
        (folder / "detections.json").write_text(text)
    network = build_low_cost_segmenter(num_classes=2, steps=1, depth_multiplier=0.25)
    network.sem_seg_head.score.bias.data[1] += 100.0  # a network that sees persons everywhere
    torch.save(network.state_dict(), coco / "fcn16_5_1.pth")
    words = f"--val-json {coco}/coco.json --images {coco} --detector {coco}/detector --width 0.25 "
    words += f"--networks {coco}/fcn16_5_1.pth --size 40 24 --output {coco}/ap --device cpu"
    monkeypatch.syspath_prepend(str(FOLDER))
    run("person_ap.py", words, monkeypatch)
    values = json.loads((coco / "ap/table.json").read_text())
    assert values["the annotated masks"] == values["the boxes themselves"] == [100.0] * 3
    # half of the person is a match at the lowest of the ten thresholds alone
    assert values["SSD-ISB, Single-Branch"] == values["SSD-ISB, Multi-Shape"] == [10.0, 100.0, 0.0]
    # the crop of a person of 20 x 50 px has 34 x 56: an IoU of 0.53
    assert values["FCN16, background 5 %, rate 1"] == [10.0, 100.0, 0.0]
    assert len(list((coco / "ap").glob("*.png"))) == 3
