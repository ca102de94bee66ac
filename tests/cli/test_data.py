from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from segroi.cli.main import main

sys.path.insert(0, str(Path(__file__).parents[1] / "utils" / "data_check"))
from broken_set import broken, sound  # noqa: E402


def words(path, *more):
    return ["data", "check", str(path), "--images", str(path.parent / "images"), *more]


def test_a_sound_set_is_status_0(tmp_path, capsys):
    path = sound(tmp_path)
    assert main(words(path, "--val-data", str(path))) == 0
    out = capsys.readouterr().out
    assert "split-overlap" in out and out.endswith("0 errors, 2 warnings\n")


def test_errors_are_status_1_and_a_table(tmp_path, capsys):
    path, where = broken(tmp_path)
    assert main(words(path, "--examples", "1")) == 1
    out = capsys.readouterr().out
    assert "image-truncated" in out and "polygon-short" in out and "errors," in out


def test_json_holds_every_finding(tmp_path, capsys):
    path, where = broken(tmp_path)
    assert main(words(path, "--json", "--fix", str(tmp_path / "fixed.json"))) == 1
    content = json.loads(capsys.readouterr().out)
    assert not content["ok"] and content["fixed"]["annotations_left_out"] > 0
    report = content["files"][0]
    assert set(report["counts"]) >= set(where) and len(report["counts"]) >= 40
    (found,) = [f for f in report["findings"] if f["code"] == "rle-damaged"]
    assert found["kind"] == "annotation" and found["id"] == where["rle-damaged"]
    assert found["file"] == str(path) and found["fix"].startswith("encode the mask anew")
    assert main(words(tmp_path / "fixed.json")) == 0


@pytest.mark.parametrize("more", [["--examples", "0"], ["--val-data", "none.json"]])
def test_wrong_use(tmp_path, more):
    assert main(words(sound(tmp_path), *more)) == 2


def test_stats(tmp_path, capsys):
    path, _ = sound(tmp_path, 3), None
    data = json.loads(path.read_text())
    data["annotations"] = data["annotations"][:12]
    data["annotations"][0]["iscrowd"] = 1
    data["categories"].append({"id": 2, "name": "[never]"})
    path.write_text(json.dumps(data))
    picture = tmp_path / "stats.png"
    assert main(["data", "stats", str(path), "--json", "--plot", str(picture)]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["images"] == {
        "count": 3,
        "empty": 1,
        "width": {"min": 40, "median": 40, "p95": 40, "max": 40},
        "height": {"min": 30, "median": 30, "p95": 30, "max": 30},
    }
    instances = numbers["instances"]
    assert (instances["count"], instances["crowds"]) == (11, 1)
    assert instances["per_image"]["max"] == 9 and instances["side"]["median"] == 17.9
    assert instances["areas"] == {"small": 11, "medium": 0, "large": 0}
    rows = {row["name"]: row for row in numbers["classes"]}
    assert rows["thing"]["images"] == 2 and rows["[never]"]["instances"] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["data", "stats", str(path)]) == 0
    assert "[never]" in capsys.readouterr().out
