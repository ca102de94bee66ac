"""The report of a run's folder, read as a user's browser would read it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from segroi.utils.coco import coco_from
from segroi.utils.run_record import (
    Truth,
    images_per_second,
    iteration_seconds,
    read_rows,
    record_evaluation,
)
from segroi.utils.run_report import report_run

CATEGORIES = [{"id": 4, "name": "thing & more"}, {"id": 9, "name": "other"}]
BOXES = {1: (4, [20, 10, 30, 20]), 2: (9, [5, 5, 20, 30])}  # category and xywh by image


def outline(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.fixture
def truth(tmp_path):
    """Two images of one object each."""
    annotations, images = [], []
    for number, (category, box) in BOXES.items():
        Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 40, "width": 60})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": category,
                "bbox": [float(v) for v in box],
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
                "segmentation": outline(*box),
            }
        )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return Truth(coco_from(content), tmp_path)


def detection(truth, image, box, score, category):
    code = truth.coco.annToRLE({"image_id": image, "segmentation": outline(*box)})
    code["counts"] = code["counts"].decode()
    found = {"image_id": image, "category_id": category, "score": score, "segmentation": code}
    return {**found, "bbox": [float(v) for v in box]}


class Tags(HTMLParser):
    """Every opened tag must be closed, and nothing may come from elsewhere."""

    VOID = {"img", "br", "meta", "!doctype"}

    def __init__(self, text):
        super().__init__()
        self.open, self.images = [], 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            assert name not in ("src", "href") or value.startswith(("data:image/", "#s")), value
        self.images += tag == "img"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_shows_every_part_and_holds_it_itself(truth, tmp_path):
    results = [
        detection(truth, 1, [20, 10, 19, 20], 0.7, 4),  # IoU 19 : 30
        detection(truth, 2, [5, 5, 20, 30], 0.9, 4),  # taken for a thing
        detection(truth, 2, [50, 0, 9, 9], 0.8, 9),  # nothing is there
        detection(truth, 2, [50, 0, 9, 9], 0.2, 9),
    ]
    run = tmp_path / "run"
    record_evaluation(run, truth, results, ("box", "mask"), seconds=0.5)
    record_evaluation(run / "before", truth, [], ("box", "mask"))
    (run / "metrics.jsonl").write_text('{"iteration": 1, "loss": 1.0, "time": 0.25}\n')
    speed = [{"operator": "x", "ms": 1.5}]
    origin = {"commit": "abc<"}
    page = report_run(run, "run <x>", read_rows(run), truth, origin, speed).read_text()
    assert Tags(page).images == 1 + 2 + 2 + 1, "curve, false positives, worst masks, images"
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style>.*</style>", "", page)))
    for said in (
        *("run &lt;x&gt;", "box, before training", "mask, after", "abc&lt;", "x 1.5"),
        *("4.00 images/s in evaluation", "0.250 s per training iteration"),
        "2 images in 0.5 s: 4.00 images/s",
        "a score of 0.70 or more",
        "thing &amp; more 1 15.0 50.0 30.0 15.0",
        *("found 1 an", "wrong category 1 an", "background 1 nothing"),
        "really other, box IoU 1.00",
        "thing &amp; more, score 0.70 mask IoU 0.63, box IoU 0.63 1.png",
    ):
        assert said in text, said
    assert "Missed objects" not in text, "both objects were found, one by the wrong name"
    assert (run / "pictures" / "1.png").exists() and (run / "losses.png").exists()


def test_misses_are_shown_largest_first(truth, tmp_path):
    record_evaluation(tmp_path, truth, [], ("box",))
    page = report_run(tmp_path, "nothing found", [], truth, {}).read_text()
    gallery = page[page.index("Missed objects") :]
    assert gallery.index("30×20 px") >= 0 and gallery.index("20×30 px") >= 0
    assert "no detection touches it" in gallery
    assert page.count("False positives, the surest") == page.count("Worst masks") == 0
    assert "<b>0.0</b>box AP" in page


def test_training_without_evaluation_still_gets_a_page(tmp_path):
    rows = [{"iteration": n, "loss": 1.0 / n, "seconds": 0.1} for n in (1, 2, 3)]
    page = report_run(tmp_path, "t", rows, None, {}, more={"Classes": "<p>mIoU 50</p>"}).read_text()
    assert Tags(page).images == 1 and "mIoU 50" in page and "0.100 s" in page
    empty = report_run(tmp_path, "t", [], None, {}).read_text()
    assert Tags(empty).images == 0


def test_wide_confusions_keep_the_worst_and_long_tables_fold(tmp_path):
    names = [{"id": n, "name": f"class{n}"} for n in range(40)]
    image = {"id": 1, "file_name": "1.png", "height": 40, "width": 60}
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "1.png")
    real = {"id": 1, "image_id": 1, "category_id": 39, "bbox": [5.0, 5, 20, 20], "area": 400.0}
    real |= {"iscrowd": 0, "segmentation": outline(5, 5, 20, 20)}
    content = {"images": [image], "annotations": [real], "categories": names}
    truth = Truth(coco_from(content), tmp_path)
    wrong = {"image_id": 1, "category_id": 38, "bbox": [5.0, 5, 20, 20], "score": 0.9}
    record_evaluation(tmp_path, truth, [wrong], ("box",))
    page = report_run(tmp_path, "many", [], truth, {}).read_text()
    Tags(page)
    head = page[page.index('<table class="matrix">') :].split("</tr>")[0]
    assert head.count("<th>") == 27 and "class39" in head and "class38" in head
    assert "<summary>40 categories</summary>" in page


def test_what_a_run_says_of_its_data_and_speed(truth, tmp_path):
    truth = truth._replace(data=tmp_path / "val.json")
    record_evaluation(tmp_path, truth, [], ("box",), seconds=4.0)
    assert images_per_second(tmp_path) == 0.5
    evaluated = json.loads((tmp_path / "evaluated.json").read_text())
    assert evaluated["data"] == str(tmp_path / "val.json") and evaluated["count"] == 2
    record_evaluation(tmp_path, truth, [], ("box",))
    assert images_per_second(tmp_path) is None


def test_logs_of_both_hosts_are_read_alike(tmp_path):
    ours, theirs = tmp_path / "tv", tmp_path / "d2"
    ours.mkdir()
    theirs.mkdir()
    assert read_rows(ours) == [] and iteration_seconds([]) is None
    times = [2.0, 3.0, 1.5, 2.5]  # the run was killed after two iterations
    lines = [{"iteration": n, "loss": 1.0, "time": t} for n, t in enumerate(times, start=1)]
    (ours / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row["seconds"] for row in read_rows(ours)] == [2.0, 1.0, 1.5, 1.0]
    logged = [
        {"iteration": 19, "total_loss": 2.0, "loss_mask": 1.0, "time": 0.5, "lr": 0.1, "eta": 3},
        {"iteration": 20, "bbox/AP": 3.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in logged)
    (theirs / "metrics.json").write_text(text + '{"iteration": 39, "total_l')
    (row,) = read_rows(theirs)
    assert row == {"iteration": 19, "lr": 0.1, "loss_mask": 1.0, "total_loss": 2.0, "seconds": 0.5}
    assert iteration_seconds([row]) == 0.5
