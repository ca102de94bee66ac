"""The quick config of SBR-CNN through both launchers: train, evaluate boxes and scored masks."""

import importlib
import json

import pytest

from segroi.d2.launch import argument_parser

YAML = {
    "SOLVER.MAX_ITER": 2,
    "SOLVER.STEPS": (),
    "SOLVER.IMS_PER_BATCH": 2,
    "INPUT.MIN_SIZE_TRAIN": (96,),
    "INPUT.MIN_SIZE_TEST": 96,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "TEST.EXPECTED_RESULTS": [],
}
LAZY = [
    "train.max_iter=2",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.mapper.augmentations.0.short_edge_length=96",
    "dataloader.test.mapper.augmentations.0.short_edge_length=96",
    "model.proposal_generator.post_nms_topk=[100,10]",
    "+TEST.EXPECTED_RESULTS=[]",
]


@pytest.mark.parametrize("launcher", ["train_net", "lazyconfig_train_net"])
def test_two_iterations_and_an_evaluation(launcher, root, digits, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "scripts"))
    if launcher == "train_net":
        suffix = "yaml"
        pairs = {"OUTPUT_DIR": tmp_path, **YAML}.items()
        options = [str(word) for pair in pairs for word in pair]
    else:
        suffix, options = "py", [f"train.output_dir={tmp_path}", *LAZY]
    words = ["--config-file", str(root / f"configs/quick/sbr_cnn_digits.{suffix}")]
    words += ["--num-gpus", "0", "--data-json", str(digits / "train.json")]
    words += ["--images", str(digits / "images"), "--val-json", str(digits / "val.json")]
    importlib.import_module(launcher).main(argument_parser().parse_args(words + options))
    assert (tmp_path / "model_final.pth").exists()
    found = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert found and {"bbox", "segmentation", "score"} <= set(found[0])
    assert "mask_score" in found[0]
