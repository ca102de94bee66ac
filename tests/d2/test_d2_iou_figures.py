import importlib
import json

import pytest
from detectron2.structures import BoxMode

from segroi.d2 import load_config
from segroi.d2.data import register_coco_json
from segroi.d2.iou_figures import (
    missing_anchor_fraction,
    read_loop_histogram,
    training_records,
)


def write_metrics(path, loops=2):
    lines = [{"iteration": 0, "total_loss": 1.0}]
    for iteration in (0, 20):  # the later one counts
        lines.append(
            {
                f"loop{loop}/iou/{index:02d}": float(index == loop + iteration / 10)
                for loop in range(loops)
                for index in range(20)
            }
        )
    path.write_text("\n".join(map(json.dumps, lines)))


def test_last_histogram_of_a_run(tmp_path):
    write_metrics(tmp_path / "metrics.json")
    histogram = read_loop_histogram(tmp_path / "metrics.json")
    assert histogram.argmax(dim=1).tolist() == [2, 3] and histogram.sum() == 2
    (tmp_path / "other.json").write_text('{"total_loss": 1.0}\n')
    with pytest.raises(ValueError, match="no IoU histogram"):
        read_loop_histogram(tmp_path / "other.json")


def test_objects_of_the_anchors_shapes_are_found_and_thin_ones_are_not(root):
    cfg = load_config(str(root / "configs/d2/r3_cnn_naive_R_50_FPN_1x.yaml"))
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (128,), 256
    # At twice the size an anchor of 32 px stands exactly on the first of these.
    boxes = [[24.0, 24, 16, 16], [10.0, 10, 60, 1]]
    annotations = [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS} for box in boxes]
    record = {"height": 64, "width": 100, "annotations": annotations}
    empty = {"height": 64, "width": 100, "annotations": []}
    missing = missing_anchor_fraction(cfg, [record, empty])
    assert missing[19] == 0.5 and missing[10] == 0.5 and missing[0] == 0
    assert missing_anchor_fraction(cfg, [empty]).eq(0).all()


def test_script_draws_both(root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "scripts"))
    script = importlib.import_module("draw_iou_figures")
    metrics, output = tmp_path / "metrics.json", ["--output", str(tmp_path)]
    write_metrics(metrics)
    assert script.main(["--metrics", str(metrics), *output]) == 0
    assert (tmp_path / "samples_iou.png").stat().st_size > 5000
    record = {"height": 64, "width": 100}
    record["annotations"] = [{"bbox": [24.0, 24, 16, 16], "bbox_mode": BoxMode.XYWH_ABS}]
    monkeypatch.setattr(script, "training_records", lambda cfg: [record])
    config = str(root / "configs/d2/r3_cnn_naive_R_50_FPN_1x.yaml")
    assert script.main(["--config-file", config, *output]) == 0
    assert (tmp_path / "anchors_iou.png").stat().st_size > 5000
    with pytest.raises(SystemExit):
        script.main([])


def test_training_records_of_a_config(root, digits):
    cfg = load_config("")
    cfg.DATASETS.TRAIN = (register_coco_json(str(digits / "train.json"), str(digits / "images")),)
    records = training_records(cfg)
    assert len(records) == 4 and all(record["annotations"] for record in records)
    assert 0 < missing_anchor_fraction(quick(root), records)[19] <= 1


def quick(root):
    return load_config(str(root / "configs/quick/r3_cnn_digits.yaml"))
