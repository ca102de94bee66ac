import argparse
import json

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from segroi.d2 import data, load_config


def _arguments(*words):
    parser = argparse.ArgumentParser()
    data.add_data_arguments(parser)
    return parser.parse_args(words)


def test_a_coco_file_is_registered_once(digits):
    names = {data.register_coco_json(str(digits / "train.json"), str(digits / "images"))} | {
        data.register_coco_json(str(digits / "train.json"), f"{digits}/images/")
    }
    (name,) = names
    records = DatasetCatalog.get(name)
    assert len(records) == 4 and records[0]["annotations"]
    assert MetadataCatalog.get(name).thing_classes == [str(d) for d in range(10)]


@pytest.mark.parametrize("missing", ["json", "images"])
def test_files_that_do_not_exist_are_named(digits, missing):
    json_file = digits / ("none.json" if missing == "json" else "train.json")
    with pytest.raises(FileNotFoundError, match="none"):
        data.register_coco_json(str(json_file), str(digits / "none"))


def test_digits_are_drawn_when_first_used(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DIGITS", "segroi_test_digits")
    calls = []

    def draw(output):
        calls.append(output)
        images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]
        coco = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "0"}]}
        for split in ("train", "val"):
            (output / f"{split}.json").write_text(json.dumps(coco))

    monkeypatch.setattr("segroi.utils.digits.make_digits", draw)
    root = tmp_path / "below" / "digits"
    data.register_digits(root)
    assert not calls
    for _ in range(2):
        for split in ("train", "val"):
            assert len(DatasetCatalog.get(f"segroi_test_digits_{split}")) == 1
    assert calls == [root]
    assert MetadataCatalog.get("segroi_test_digits_val").evaluator_type == "coco"


def test_arguments_set_a_yacs_config(digits):
    cfg = load_config("")
    images, train, val = (str(digits / n) for n in ("images", "train.json", "val.json"))
    data.apply_data_arguments(cfg, _arguments("--data-json", train, "--images", images))
    assert cfg.DATASETS.TRAIN == cfg.DATASETS.TEST
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 10 and cfg.INPUT.MASK_FORMAT == "bitmask"
    arguments = ("--data-json", train, "--images", images, "--val-json", val)
    data.apply_data_arguments(cfg, _arguments(*arguments))
    assert cfg.DATASETS.TRAIN != cfg.DATASETS.TEST
    assert len(DatasetCatalog.get(cfg.DATASETS.TEST[0])) == 2


def test_arguments_set_a_lazy_config(digits, root):
    cfg = LazyConfig.load(str(root / "configs/d2/mask_rcnn_groie_R_50_FPN_1x.py"))
    images, train, val = (str(digits / n) for n in ("images", "train.json", "val.json"))
    arguments = ("--data-json", train, "--images", images, "--val-json", val)
    data.apply_data_arguments(cfg, _arguments(*arguments))
    assert cfg.model.roi_heads.num_classes == 10
    assert len(instantiate(cfg.dataloader.train.dataset)) == 4
    assert len(instantiate(cfg.dataloader.test.dataset)) == 2
    assert instantiate(cfg.dataloader.evaluator)._metadata.json_file == val


def test_without_arguments_nothing_changes():
    cfg = load_config("")
    before = cfg.dump()
    data.apply_data_arguments(cfg, _arguments())
    assert cfg.dump() == before


def test_annotations_need_their_images(digits):
    with pytest.raises(SystemExit, match="--images"):
        data.apply_data_arguments(load_config(""), _arguments("--data-json", "train.json"))
