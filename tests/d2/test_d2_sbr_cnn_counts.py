"""The parameter counts that the SBR-CNN paper prints, of the models that the configs build.

The paper counts what its framework trains: batch norm of res3 to res5 with it, which Detectron2
keeps as buffers. It cuts its numbers off; it does not round them.
"""

import json
from pathlib import Path

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import build_roi_heads

from segroi.d2 import load_config

ROOT = Path(__file__).resolve().parents[2]
ROWS = "projects/SBR-CNN/configs"
TRUNK = 27_221_007  # ResNet-50, FPN and RPN, as the paper counts


def trainable(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def as_the_paper_counts(model):
    stages = [getattr(model.backbone.bottom_up, f"res{n}") for n in (3, 4, 5)]
    norms = [m for s in stages for m in s.modules() if isinstance(m, FrozenBatchNorm2d)]
    return trainable(model) + sum(m.weight.numel() + m.bias.numel() for m in norms)


def config(path):
    cfg = load_config(str(ROOT / path))
    cfg.MODEL.DEVICE = "meta"  # shapes only
    return cfg


def build(cfg):
    with torch.device("meta"):
        return build_model(cfg)


def count_heads(path):
    cfg = config(path)
    shapes = {f"p{n}": ShapeSpec(channels=256, stride=2**n) for n in (2, 3, 4, 5)}
    with torch.device("meta"):
        return trainable(build_roi_heads(cfg, shapes))


@pytest.mark.parametrize(
    ("path", "expected", "printed"),
    [
        (f"{ROWS}/mask_rcnn_1x.yaml", 44_170_992, "44,170 K"),
        ("configs/d2/htc_R_50_FPN_1x.yaml", 77_230_846, "77,230 K"),
        ("configs/d2/r3_cnn_naive_R_50_FPN_1x.yaml", 43_912_884, "43,912 K"),
        ("configs/d2/r3_cnn_deeper_R_50_FPN_1x.yaml", 60_604_761, "60,604 K"),
    ],
)
def test_table_2_by_the_whole_model(path, expected, printed):
    model = build(config(path))
    assert as_the_paper_counts(model) == expected
    assert f"{expected // 1000:,} K" == printed
    assert trainable(model) - trainable(model.roi_heads) + 50_176 == TRUNK


@pytest.mark.parametrize(
    ("row", "expected", "printed"),
    [
        ("fcc_7x7", 32_203_956, 32.2),
        ("fcc_rect", 32_777_780, 32.7),
        ("fcc_7x7_nlb", 38_627_124, 38.6),
        ("fcc_rect_nlb", 37_910_516, 37.9),
        ("fcc_7x7_nlb_nla", 39_028_692, 39.0),
        ("fcc_2_none", 60_604_761, 60.6),
        ("fcc_2_7x7", 37_186_905, 37.1),
        ("fcc_2_rect", 38_334_553, 38.3),
        ("fcc_2_7x7_nlb", 50_033_241, 50.0),
        ("fcc_2_rect_nlb", 51_180_889, 51.1),
        ("mask_iou_fc", 54_967_428, 54.9),
        ("mask_iou_7x7", 43_247_940, 43.2),
        ("mask_iou_rect", 44_395_588, 44.3),
        ("mask_iou_7x7_nlb", 49_671_108, 49.6),
        ("mask_iou_7x7_nlb_nla", 50_072_676, 50.0),
        ("mask_iou_2_fc", 66_373_545, 66.3),
        ("mask_iou_2_7x7", 54_654_057, 54.6),
        ("mask_iou_2_7x7_nlb", 61_077_225, 61.0),
        ("mask_iou_2_7x7_nlb_nla", 61_478_793, 61.4),
    ],
)
def test_tables_6_and_7(row, expected, printed):
    count = TRUNK + count_heads(f"{ROWS}/{row}.yaml")
    assert count == expected
    assert count // 100_000 == round(10 * printed)


def test_table_6_row_6_contradicts_figure_4e():
    """The paper prints 37.9M for the head of Fig. 4(e); that is the early reduction of its code."""
    cfg = config(f"{ROWS}/fcc_rect_nlb.yaml")
    cfg.MODEL.FCC.VARIANT = "e"
    assert as_the_paper_counts(build(cfg)) == 39_200_948


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("configs/d2/sbr_cnn_R_50_FPN_1x.yaml", 61_800_708),
        (f"{ROWS}/groie_best.yaml", 14_306_705 + 9_634_688 + TRUNK),
    ],
)
def test_totals_that_the_paper_does_not_print(path, expected):
    assert TRUNK + count_heads(path) == expected


def test_loops_change_no_weights():
    counts = {count_heads(path.relative_to(ROOT)) for path in (ROOT / ROWS).glob("*_loops_*.yaml")}
    assert counts == {43_912_884 - TRUNK}


def rows():
    tables = json.loads((ROOT / "projects/SBR-CNN/results.json").read_text())["tables"]
    configs = {row["config"] for table in tables for row in table["rows"]}
    return sorted(c for c in configs if c.endswith(".yaml"))  # the lazy ones: test_d2_quick


@pytest.mark.parametrize("path", rows())
def test_every_row_has_a_config_that_builds(path):
    assert trainable(build(config(path))) > TRUNK


def test_every_config_of_the_project_stands_in_a_table():
    folder = ROOT / ROWS
    leaves = {f"{ROWS}/{p.name}" for p in folder.glob("*.yaml") if not p.name.startswith("Base")}
    assert leaves <= set(rows())
