"""Very many images: the same answers as one by one, and a job that goes on."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from segroi.cli.main import main
from segroi.cli.predict_many import find_files
from segroi.tv.checkpoint import describe, save_checkpoint
from segroi.tv.models import build_model
from segroi.utils.suggest import UsageError

ARGUMENTS = {
    **{"backbone": "mobilenet_v3_small", "norm": "group", "size": 64, "max_size": 96},
    **{"channels": 16, "hidden": 32, "mask_convs": 1, "proposals": [20, 20], "anchor_scale": 4.0},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model("mask_rcnn", 2, **ARGUMENTS)
    path = tmp_path_factory.mktemp("run") / "model_final.pth"
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = describe("mask_rcnn", categories, ARGUMENTS)
    save_checkpoint(path, {**content, "state_dict": model.state_dict(), "config": {}})
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for number in range(5):
        name = folder / ("deeper" if number == 4 else "") / f"{number}.png"
        Image.effect_noise((64, 48 + number), 60 + number).convert("RGB").save(name)
    return folder


def words(images, weights, output, *more):
    options = ["--output", str(output), "--shard-size", "2", "--device", "cpu"]
    return ["predict-many", str(images), "--weights", str(weights), *options, *more]


def lines(output):
    parts = sorted((output / "parts").glob("*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def test_answers_are_those_of_predict(images, weights, tmp_path, capsys):
    assert main(words(images, weights, tmp_path / "many", "--threshold", "0.3", "--json")) == 0
    out = capsys.readouterr().out
    counts = json.loads(out[out.index("{") :])
    assert counts == {"images": 5, "unreadable": 0, "shards": 3, "shards_left": 0}
    many = lines(tmp_path / "many")
    assert len({line["file"] for line in many}) == 5 and any(line["instances"] for line in many)
    single = ["predict", str(images), "--weights", str(weights), "--threshold", "0.3"]
    assert main([*single, "--output", str(tmp_path / "one"), "--device", "cpu"]) == 0
    one = json.loads((tmp_path / "one" / "predictions.json").read_text())
    for entry, line in zip(one, many):
        assert line["file"].endswith(entry["file"].rsplit("/", 1)[1])
        assert entry["instances"] == line["instances"] and entry["height"] == line["height"]


def test_a_job_goes_on_in_parts_and_tells_what_it_cannot_read(images, weights, tmp_path, capsys):
    (images / "broken.png").write_bytes(b"no image")
    job = tmp_path / "job"
    assert main(words(images, weights, job, "--part", "2/2")) == 0
    assert "2 shards left" in capsys.readouterr().out
    assert len(lines(job)) == 2
    assert main(words(images, weights, job)) == 1, "one image cannot be read"
    assert "4 images, 1 unreadable" in capsys.readouterr().out
    (bad,) = [line for line in lines(job) if "error" in line]
    assert bad["file"].endswith("broken.png") and "cannot be read" in bad["error"]
    assert len(lines(job)) == 6 and main(words(images, weights, job)) == 0, "nothing is left"
    assert main(words(images, weights, job, "--threshold", "0.9")) == 2
    assert "its threshold is 0.5, now it is 0.9" in capsys.readouterr().err.replace("\n", " ")


def test_lists_of_files(images, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("images/1.png\n\nimages/0.png\n")
    assert find_files(listed) == [str(images / "1.png"), str(images / "0.png")]
    assert [f.rsplit("/", 1)[1] for f in find_files(images)] == [f"{n}.png" for n in range(5)]
    listed.write_text("images/1.png\nimages/../images/1.png\n")
    with pytest.raises(UsageError, match="twice"):
        find_files(listed)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--part", "0/2", "must be I/N"),
        ("--part", "3/2", "must be I/N"),
        ("--part", "1", "must be I/N"),
        ("--threshold", "2", "in 0..1"),
        ("--shard-size", "0", "at least 1"),
    ],
)
def test_mistakes_are_told(images, weights, tmp_path, capsys, option, value, said):
    assert main(words(images, weights, tmp_path / "job", option, value)) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "job").exists()
