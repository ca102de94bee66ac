"""Two runs made by hand: what differs must be told, and what cannot be compared, too."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from test_run_report import Tags, outline

from segroi.cli.main import main
from segroi.utils.coco import load_coco
from segroi.utils.compare import compare_runs, read_run
from segroi.utils.run_record import Truth, record_evaluation

BOXES = [(1, [5, 5, 20, 20]), (1, [35, 5, 10, 10]), (2, [5, 5, 30, 30])]  # image and box


def annotation(number, image, box):
    area = float(box[2] * box[3])
    entry = {"id": number, "image_id": image, "category_id": 4, "bbox": box, "area": area}
    return {**entry, "iscrowd": 0, "segmentation": outline(*box)}


@pytest.fixture
def data(tmp_path):
    images = []
    for number in (1, 2, 3):
        Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 40, "width": 60})
    real = [annotation(n, image, box) for n, (image, box) in enumerate(BOXES, start=1)]
    content = {"images": images, "annotations": real, "categories": [{"id": 4, "name": "thing"}]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    return tmp_path / "val.json"


def make_run(data, folder, found, host="metrics.jsonl", config="lr: 0.1\n"):
    """A run that finds the objects of these places, with scores that fall."""
    results = [
        {"image_id": BOXES[i][0], "category_id": 4, "bbox": BOXES[i][1], "score": 0.9 - 0.1 * place}
        for place, i in enumerate(found)
    ]
    truth = Truth(load_coco(data), data.parent, data)
    record_evaluation(folder, truth, results, ("box",), seconds=len(found) + 1.0)
    name = "loss" if host == "metrics.jsonl" else "total_loss"
    rows = [{"iteration": n, name: 1.0 / n, "time": float(n)} for n in (1, 2, 3)]
    (folder / host).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(config)
    return folder


def test_what_only_one_run_finds(data, tmp_path):
    one = make_run(data, tmp_path / "one", [0, 1])
    two = make_run(data, tmp_path / "two", [0, 2], "metrics.json", "lr: 0.2\n")
    numbers = compare_runs(read_run(one), read_run(two), tmp_path / "out")
    assert numbers["objects"] == {"both": 1, "only one": 1, "only two": 1, "neither": 0}
    assert numbers["settings"] == {"lr": ["0.1", "0.2"]}
    first, second, step = numbers["ap"]["box"]["AP"]
    assert first == second and step == 0.0
    assert numbers["ap"]["box"]["APs"][2] == pytest.approx(0.0)
    page = (tmp_path / "out" / "compare.html").read_text()
    assert Tags(page).images == 1 + 2 + 3, "curves, two crops, three images"
    only_one, only_two = page.index("Only one finds"), page.index("Only two finds")
    assert only_one < page.index("10×10 px") < only_two < page.index("30×30 px")
    assert page.index('alt="1"') < page.index('alt="3"'), "image 3 does not differ"


def test_other_data_is_told_and_numbers_still_compared(data, tmp_path, capsys):
    one = make_run(data, tmp_path / "one", [0])
    two = make_run(data, tmp_path / "two", [0, 1, 2])
    other = json.loads(data.read_text())
    other["annotations"].pop()
    (tmp_path / "other.json").write_text(json.dumps(other))
    evaluated = json.loads((two / "evaluated.json").read_text())
    evaluated["data"] = str(tmp_path / "other.json")
    (two / "evaluated.json").write_text(json.dumps(evaluated))
    assert main(["compare", str(one), str(two)]) == 0
    out = capsys.readouterr().out
    assert "box   AP 33.7 -> 100.0 (+66.3)" in out and "objects" not in out
    assert "on different annotations" in (two / "compare-one" / "compare.html").read_text()


def test_runs_of_one_name_and_json(data, tmp_path, capsys):
    runs = [make_run(data, tmp_path / x / "run", [0]) for x in ("x", "y")]
    words = ["compare", *map(str, runs), "--output", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["runs"] == ["A run", "B run"] and numbers["objects"]["only A run"] == 0
    assert "None." in (tmp_path / "out" / "compare.html").read_text()


def test_many_settings_are_folded_and_nothing_of_places(data, tmp_path):
    one, two = (
        make_run(data, tmp_path / name, [0], config=f"output: {name}\n" + lines)
        for name, lines in (("one", "".join(f"k{i}: a\n" for i in range(25))), ("two", "x: <b>\n"))
    )
    numbers = compare_runs(read_run(one), read_run(two), tmp_path / "out")
    assert numbers["settings"]["k3"] == ["a", None] and "output" not in numbers["settings"]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<summary>26 settings</summary>" in page and "&lt;b&gt;" in page
    Tags(page)


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err.replace("\n", " ")
    assert main(["compare", str(tmp_path / "nowhere"), str(tmp_path)]) == 2
