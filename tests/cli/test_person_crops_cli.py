from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from segroi.cli.main import main


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.full((40, 40, 3), 90, np.uint8))
    box, polygon = [10, 10, 10, 20], [10, 10, 20, 10, 20, 30, 10, 30]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 200}
    annotation |= {"iscrowd": 0, "segmentation": [polygon]}
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 40}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(data))
    return ["--json", str(tmp_path / "coco.json"), "--images", str(tmp_path / "images")]


def test_crops_of_a_coco_file(coco, tmp_path, capsys):
    output = tmp_path / "crops"
    options = ["--size", "160x96", "--background", "0.05", "--output", str(output)]
    assert main(["data", "person-crops", *coco, *options]) == 0
    assert "crops   1" in capsys.readouterr().out
    assert json.loads((output / "crops.json").read_text())["background"] == 0.05
    assert json.loads((output / "classes.json").read_text())[0] == "background"
    assert cv2.imread(str(output / "labels" / "a_1.png")).shape == (160, 96, 3)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "needs either --json"),
        (["--json", "no.json"], "needs --images"),
        (["--cityscapes", ".", "--detections", "boxes.json"], "--detections needs --json"),
        (["--cityscapes", "nowhere"], "nowhere does not exist"),
        (["--cityscapes", ".", "--background", "2"], "between 0 and 1"),
    ],
)
def test_wrong_use(words, text, tmp_path, capsys):
    assert main(["data", "person-crops", "--output", str(tmp_path / "out"), *words]) == 2
    assert text in " ".join(capsys.readouterr().err.split())
