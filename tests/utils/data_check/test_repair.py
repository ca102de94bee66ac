from __future__ import annotations

import json

import pytest
from broken_set import ANNOTATIONS, broken, sound
from pycocotools.coco import COCO

from segroi.utils.data_check import RULES, check_dataset, refuse_broken_data, repair
from segroi.utils.suggest import UsageError


def test_the_broken_set_is_mended(tmp_path):
    path, _ = broken(tmp_path)
    images = tmp_path / "images"
    counts = repair(path, images, tmp_path / "mended.json", check_dataset(path, images))
    after = check_dataset(tmp_path / "mended.json", images)
    assert after.ok, dict(after.counts)
    data = json.loads((tmp_path / "mended.json").read_text())
    assert counts["images"] == len(data["images"]) and counts["annotations_left_out"] > 0
    assert not {"image-missing.png", "image-damaged.png", "../../outside.png"} & {
        i["file_name"] for i in data["images"]
    }
    real = next(i for i in data["images"] if i["file_name"] == "image-size.png")
    assert (real["width"], real["height"]) == (31, 30)
    coco = COCO(str(tmp_path / "mended.json"))
    for entry in coco.anns.values():
        if entry["segmentation"]:
            coco.annToMask(entry)
    left = {a["id"]: a for a in data["annotations"]}
    numbers = dict(zip(ANNOTATIONS, range(1000, 2000)))
    assert left[numbers["box-broken"]]["bbox"] == [4, 4, 20, 16], "taken from the polygon"
    assert left[numbers["box-beyond"]]["bbox"] == [4, 4, 36, 16], "clipped"
    assert left[numbers["annotation-no-area"]]["area"] == 320


def test_corners_become_sizes(tmp_path):
    path = sound(tmp_path)
    data = json.loads(path.read_text())
    for entry in data["annotations"]:
        entry["bbox"] = [4, 4, 24, 20]
    data["annotations"][0]["score"] = float("nan")
    path.write_text(json.dumps(data))
    repair(path, tmp_path / "images", tmp_path / "m.json", check_dataset(path, tmp_path / "images"))
    mended = json.loads((tmp_path / "m.json").read_text(), parse_constant=pytest.fail)
    assert all(entry["bbox"] == [4, 4, 20, 16] for entry in mended["annotations"])


def test_what_cannot_be_mended(tmp_path):
    path = sound(tmp_path)
    findings = check_dataset(path, tmp_path / "images")
    with pytest.raises(UsageError, match="writes a copy"):
        repair(path, tmp_path / "images", path, findings)
    path.write_text(path.read_text()[:50])
    with pytest.raises(UsageError, match="its text is broken"):
        repair(path, tmp_path / "images", tmp_path / "m.json", findings)


def test_training_is_refused_with_the_first_of_each_kind(tmp_path, capsys):
    path, _ = broken(tmp_path)
    with pytest.raises(UsageError) as error:
        refuse_broken_data(path, tmp_path / "images")
    text = str(error.value)
    assert "--no-data-check" in text and f"segroi data check {path}" in text
    assert "other kinds" in text and "annotation" in text
    data = json.loads(sound(tmp_path).read_text())
    data["annotations"][0]["bbox"] = [4, 4, 0, 0]
    path.write_text(json.dumps(data))
    refuse_broken_data(path, tmp_path / "images")
    assert "box-empty: annotation 10" in capsys.readouterr().err.replace("\n", " ")


def test_remedies_are_sentences_without_full_stop():
    for code, rule in RULES.items():
        assert rule.severity in ("error", "warning", "info") and not rule.fix.endswith("."), code
