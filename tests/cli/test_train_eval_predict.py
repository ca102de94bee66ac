from __future__ import annotations

import argparse
import json
import re

import pytest
import torch
from PIL import Image

from segroi.cli import _detectron2
from segroi.cli.main import main
from segroi.utils.digits import SceneSpec, make_digits

pytest.importorskip("sklearn")
TINY = [
    *("model_args.backbone=mobilenet_v3_small", "model_args.norm=group", "model_args.channels=16"),
    *("model_args.hidden=32", "model_args.mask_convs=1", "model_args.rois_per_image=16"),
    *("model_args.proposals=[20,20]", "model_args.anchor_scale=4", "workers=0", "device=cpu"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    spec = SceneSpec(size=(64, 64), digits=(1, 3), side=(20, 40))
    return make_digits(tmp_path_factory.mktemp("digits"), train=6, val=2, spec=spec)


def train_words(digits, output, *more):
    words = ["train", "--data", str(digits["train"]), "--images", str(digits["images"])]
    words += ["--val-data", str(digits["val"]), "--model", "mask_rcnn_groie"]
    return [*words, "--output", str(output), "--iterations", "3", "--size", "64", *more, *TINY]


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "my run"
    assert main(train_words(digits, output, "--before")) == 0
    return output


def test_train_leaves_a_whole_run(trained):
    names = {p.name for p in trained.iterdir()}
    wanted = {"checkpoint.pth", "model_final.pth", "config.yaml", "provenance.json", "losses.png"}
    assert wanted | {"metrics.jsonl", "evaluation.json", "detections.json", "before"} <= names
    page = (trained / "report.html").read_text()
    assert "mask, before training" in page and "mask, after" in page
    assert page.count('src="data:image/png;base64,') == 1 and "http" not in page
    assert page.count('src="data:image/jpeg;base64,') >= 2 and "Missed objects" in page
    assert len(list((trained / "pictures").glob("val_*.png"))) == 2
    with Image.open(trained / "pictures" / "val_00000.png") as picture:
        assert picture.width > 2 * picture.height * 0.9


def test_training_goes_on(trained, digits, capsys):
    assert main(train_words(digits, trained)) == 2
    assert "--resume goes on with it" in capsys.readouterr().err.replace("\n", " ")
    assert main(train_words(digits, trained, "--resume")) == 0


def test_eval_prints_the_twelve_numbers(trained, digits, capsys):
    words = ["eval", "--weights", str(trained), "--data", str(digits["val"])]
    words += ["--images", str(digits["images"]), "--device", "cpu"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert re.search(r"^mask( +(-|\d+\.\d)){12}$", out, re.MULTILINE)
    assert (trained / "evaluation-val" / "report.html").exists()
    alone = ["eval", "--weights", str(trained), "--device", "cpu"]  # the data of its training
    assert main([*alone, "--json", "--output", str(trained / "again")]) == 0
    text = capsys.readouterr().out
    numbers = json.loads(text[text.index("{") :])
    assert numbers == json.loads((trained / "evaluation.json").read_text())


def test_predict_draws_every_picture(trained, digits, tmp_path, capsys):
    words = ["predict", str(digits["images"]), "--weights", str(trained / "model_final.pth")]
    assert main([*words, "--output", str(tmp_path / "out"), "--threshold", "0.06"]) == 0
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(entries) == 8
    for entry in entries:
        with Image.open(entry["picture"]) as picture:
            assert picture.size[0] >= entry["width"] == 64
        assert all(i["score"] >= 0.06 and i["name"] in "0123456789" for i in entry["instances"])
        assert all(i["mask"]["size"] == [64, 64] for i in entry["instances"])
    assert "objects in 8 images" in capsys.readouterr().out


def test_predict_one_image_without_detections(trained, digits, tmp_path):
    Image.new("L", (50, 40), 128).save(tmp_path / "grey.png")
    words = ["predict", str(tmp_path / "grey.png"), "--weights", str(trained)]
    assert main([*words, "--output", str(tmp_path / "out"), "--threshold", "1"]) == 0
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert entries[0]["instances"] == [] and (tmp_path / "out" / "grey.png.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "--model is missing"),
        (["train", "--model", "mask_rcnn_groi", "--data", "D"], "did you mean mask_rcnn_groie"),
        (["train", "iterations"], "'iterations' is no KEY=VALUE"),
        (["train", "iteration=3"], "unknown field 'iteration': did you mean iterations"),
        (["train", "--config", "nowhere.yaml"], "config file nowhere.yaml does not exist"),
        (["eval", "--weights", "no.pth", "--data", "d", "--images", "i"], "weights file no.pth"),
        (["eval", "--weights", __file__, "--data", "d"], "--data and --images go together"),
        (["predict", "no.png", "--weights", "w", "--output", "o"], "no.png does not exist"),
        (["predict", "x", "--weights", "w", "--output", "o", "--threshold", "2"], "in 0..1, got 2"),
        (["models", "mask_rcn"], "did you mean mask_rcnn"),
    ],
)
def test_mistakes_are_told(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_unknown_model(digits, tmp_path, capsys):
    words = train_words(digits, tmp_path / "run")
    words[words.index("mask_rcnn_groie")] = "mask_rcn_groie"
    assert main(words) == 2
    assert "did you mean mask_rcnn_groie" in capsys.readouterr().err.replace("\n", " ")


def test_models_lists_parameters(capsys):
    assert main(["models", "--json", "--classes", "10"]) == 0
    rows = json.loads(capsys.readouterr().out)["torchvision"]
    extractors = 2 * (1_638_656 + 258_305)  # GRoIE's convolution and attention, box and mask
    difference = rows["mask_rcnn_groie"]["parameters"] - rows["mask_rcnn"]["parameters"]
    assert difference == extractors
    assert main(["models", "mask_rcnn"]) == 0


def options(**given) -> argparse.Namespace:
    names = "data images val_data val_images model output config iterations batch_size size lr"
    names += " optimizer backbone backbone_weights workers seed device"
    flags = dict.fromkeys(("resume", "no_data_check", "trust_config"), False)
    values = dict.fromkeys(names.split()) | flags | {"settings": []} | given
    return argparse.Namespace(**values)


def test_detectron2_gets_its_own_words(tmp_path):
    config = tmp_path / "lazy.py"
    config.touch()
    command = _detectron2.launcher_command(
        options(
            data="d.json",
            images="im",
            output="out",
            config=str(config),
            iterations=7,
            resume=True,
            no_data_check=True,
            settings=["model.roi_heads.mask_on=False"],
        )
    )
    assert command[1].endswith("lazyconfig_train_net.py")
    assert command[2:] == [
        *("--config-file", str(config), "--data-json", "d.json", "--images", "im", "--resume"),
        "--no-data-check",
        *("train.output_dir=out", "train.max_iter=7", "model.roi_heads.mask_on=False"),
    ]
    with pytest.raises(ValueError, match="--size is for --host tv"):
        _detectron2.launcher_command(options(data="d", images="i", output="o", size=3))
