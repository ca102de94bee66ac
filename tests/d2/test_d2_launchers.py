"""Both launchers, really run: two iterations, evaluation, resumption, expectations."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch

from segroi.cli.main import main as segroi_command
from segroi.d2.launch import argument_parser
from segroi.d2.predict import load_run
from segroi.tv.predict import above

CONFIGS = {
    "train_net": "configs/quick/mask_rcnn_groie_digits.yaml",
    "lazyconfig_train_net": "configs/quick/mask_rcnn_groie_digits.py",
}


@pytest.fixture(params=list(CONFIGS))
def launcher(request, root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "scripts"))
    return importlib.import_module(request.param)


def _options(launcher, output, iterations, expected=(), weights=""):
    """Overrides of a quick config: few iterations of two small images, every detection kept."""
    if launcher.__name__ == "train_net":
        values = {
            "OUTPUT_DIR": output,
            "MODEL.WEIGHTS": weights,
            "SOLVER.MAX_ITER": iterations,
            "SOLVER.STEPS": (),
            "SOLVER.IMS_PER_BATCH": 2,
            "INPUT.MIN_SIZE_TRAIN": (96,),
            "INPUT.MIN_SIZE_TEST": 96,
            "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
            "TEST.EXPECTED_RESULTS": list(expected),
        }
        return [str(word) for pair in values.items() for word in pair]
    return [
        f"train.output_dir={output}",
        f"train.init_checkpoint='{weights}'",
        f"train.max_iter={iterations}",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.mapper.augmentations.0.short_edge_length=96",
        "dataloader.test.mapper.augmentations.0.short_edge_length=96",
        "model.proposal_generator.post_nms_topk=[100,10]",
        "model.roi_heads.box_predictor.test_score_thresh=0.0",
        f"TEST.EXPECTED_RESULTS={json.dumps(list(expected))}",
    ]


def _run(launcher, root, digits, flags, options):
    words = ["--config-file", str(root / CONFIGS[launcher.__name__]), "--num-gpus", "0"]
    words += ["--data-json", str(digits / "train.json"), "--images", str(digits / "images")]
    words += ["--val-json", str(digits / "val.json"), *flags, *options]
    return launcher.main(argument_parser().parse_args(words))


def test_train_evaluate_resume(launcher, root, digits, tmp_path):
    _run(launcher, root, digits, [], _options(launcher, tmp_path, 2))
    final = tmp_path / "model_final.pth"
    first = torch.load(final, weights_only=False)
    assert first["iteration"] == 1
    assert any("mask_pooler.extractor.pre" in name for name in first["model"])
    assert (tmp_path / "config.yaml").exists()
    found = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert found and set(found[0]) >= {"image_id", "category_id", "bbox", "segmentation", "score"}
    page = (tmp_path / "report.html").read_text()
    assert "mask AP" in page and "images/s in evaluation" in page and "digits" in page

    options = _options(launcher, tmp_path, 2, [["bbox", "AP", 100.0, 1.0]], final)
    with pytest.raises(SystemExit) as unexpected:  # two iterations do not make AP 100
        _run(launcher, root, digits, ["--eval-only"], options)
    assert unexpected.value.code == 1

    detector, categories = load_run(final)
    assert categories == [str(digit) for digit in range(10)]
    image = torch.rand(3, 64, 80)
    with torch.no_grad():
        (output,) = detector([image])
    assert output["masks"].shape == (len(output["boxes"]), 1, 64, 80)
    assert len(output["boxes"]) and output["boxes"].max() <= 80 and output["labels"].min() >= 1
    middle = float(output["scores"].median())
    with torch.no_grad():
        (best,) = load_run(final, threshold=middle)[0]([image])
    torch.testing.assert_close(best, above(output, middle))

    picture, seen = str(next((digits / "images").glob("val*"))), tmp_path / "seen"
    words = [picture, "--weights", str(tmp_path), "--output", str(seen), "--threshold", "0"]
    assert segroi_command(["predict", *words]) == 0
    (entry,) = json.loads((seen / "predictions.json").read_text())
    assert (entry["height"], entry["width"]) == (96, 96) and entry["instances"]

    words = ["eval", "--weights", str(tmp_path), "--device", "cpu"]
    assert segroi_command([*words, "--output", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert again == json.loads((tmp_path / "evaluation.json").read_text())
    assert (tmp_path / "again" / "report.html").exists()

    options = _options(launcher, tmp_path, 3, [["bbox", "AP", 0.0, 50.0]])
    results = _run(launcher, root, digits, ["--resume"], options)
    assert 0 <= results["bbox"]["AP"] < 50 and "AP" in results["segm"]
    told = json.loads((tmp_path / "evaluation.json").read_text())
    for kind, task in {"box": "bbox", "mask": "segm"}.items():
        assert 100 * told[kind]["AP"] == pytest.approx(results[task]["AP"], abs=1e-6)
    assert torch.load(final, weights_only=False)["iteration"] == 2
    assert "Starting training from iteration 2" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("script", list(CONFIGS))
def test_command_line(script, root):
    done = subprocess.run(
        [sys.executable, str(root / "scripts" / f"{script}.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    options = "--num-gpus --num-machines --machine-rank --resume --eval-only --data-json opts"
    for option in options.split():
        assert option in done.stdout
