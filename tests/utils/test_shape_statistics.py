from __future__ import annotations

import json

import pytest

from segroi.cli.main import main
from segroi.utils.coco import coco_from
from segroi.utils.shape_statistics import (
    annotation_shapes,
    branch_loads,
    count_shapes,
    shape_subset,
    suggest_shapes,
)
from segroi.utils.suggest import UsageError

# px of an image of 400 x 200: a cell is 20 px wide and 10 px high
BOXES = [
    (1, [20, 10, 40, 30], 1),  # exactly 3x2 cells, on grid lines
    (1, [21, 11, 40, 30], 1),  # 4x3
    (1, [0, 0, 400, 200], 2),  # all
    (2, [399, 199, 1, 1], 1),  # 1x1
    (3, [100, 100, 20, 30], 2),  # 3x1
]


@pytest.fixture
def content():
    images = [{"id": i, "width": 400, "height": 200, "file_name": f"{i}.png"} for i in (1, 2, 3, 4)]
    annotations = [
        {"id": n, "image_id": i, "bbox": b, "category_id": c, "iscrowd": n % 2, "area": b[2] * b[3]}
        for n, (i, b, c) in enumerate(BOXES, start=1)
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_shapes_of_annotations(content):
    found = annotation_shapes(coco_from(content))
    assert count_shapes(found) == {(3, 2): 1, (4, 3): 1, (20, 20): 1, (1, 1): 1, (3, 1): 1}
    assert set(found) == {1, 2, 3}
    people = count_shapes(annotation_shapes(coco_from(content), "person"))
    assert people == {(3, 2): 1, (4, 3): 1, (1, 1): 1}
    with pytest.raises(UsageError, match="person"):
        annotation_shapes(coco_from(content), "persons")


def test_subsets(content):
    coco = coco_from(content)
    people = shape_subset(coco, "person")
    assert [i["id"] for i in people["images"]] == [1, 2]
    assert len(people["annotations"]) == 3
    assert people["categories"] == content["categories"][:1]
    shaped = shape_subset(coco, "person", {(3, 2)})
    assert [len(shaped[k]) for k in ("images", "annotations")] == [1, 2]
    matching = shape_subset(coco, "person", {(3, 2)}, only_matching=True)
    assert [a["id"] for a in matching["annotations"]] == [1]


def test_suggestions_follow_the_data_and_the_memory():
    counts = {(2, 1): 500, (2, 2): 300, (8, 4): 100, (16, 12): 50}
    shapes = suggest_shapes(counts, 5)
    assert shapes == [(16, 12), (8, 4), (2, 2), (2, 1), (1, 1)]
    assert branch_loads(counts, shapes) == [50, 100, 300, 500, 0]
    cell = 30 * 4 * (1024 + 4 * 512 + 16 * 256)
    small = suggest_shapes(counts, 5, max_bytes=60 * cell)
    assert sum(h * w for h, w in small) <= 60
    assert small[-1] == (1, 1)
    assert sum(branch_loads(counts, small)) == 950
    assert suggest_shapes(counts, 1) == [(1, 1)]
    with pytest.raises(ValueError, match="suggest_shapes"):
        suggest_shapes({}, 5)


def test_command(content, tmp_path, capsys):
    path, plot, subset = (tmp_path / n for n in ("a.json", "a.png", "b.json"))
    path.write_text(json.dumps(content))
    options = ["--category", "person", "--plot", str(plot), "--subset", str(subset)]
    assert main(["data", "shapes", str(path), *options, "--keep", "matching"]) == 0
    out = capsys.readouterr().out
    assert "3 annotations in 2 images" in out
    assert "3x2           1" in out
    assert plot.stat().st_size > 1000
    assert len(json.loads(subset.read_text())["annotations"]) == 2
