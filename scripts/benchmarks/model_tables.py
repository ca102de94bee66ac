"""The tables of bench_models.py: which systems stand beside which, the peer first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_rows import ZOO, Row, Setting, detectron2_row, semantic_row, ssd_isb_row

_ZOO = f"{ZOO}COCO-InstanceSegmentation/"
_R50_FPN = f"{_ZOO}mask_rcnn_R_50_FPN_1x.py"
_DEPTH = "backbone__bottom_up__stages__depth"
_HALF = {"depth_multiplier": 0.5}


@dataclass(frozen=True)
class Table:
    """Systems under one setting.

    Args:
        group: what ``--group`` calls it.
        title: one line.
        rows: by name, the peer first.
        setting: of all rows.
        results: results.json and id of the project's table that these rows fill.
    """

    group: str
    title: str
    rows: Mapping[str, Row]
    setting: Setting = field(default_factory=Setting)
    results: tuple[str, str] = ("", "")


def _d2(config: str, result: str = "", **changes: Any) -> Row:
    return Row(detectron2_row, {"config": config, **changes}, result)


def _groie(**changes: Any) -> Row:
    heads = ("box", "mask")
    keys = {
        f"roi_heads__{head}_pooler__extractor__{key}": value
        for head in heads
        for key, value in changes.items()
    }
    return _d2("configs/d2/mask_rcnn_groie_R_50_FPN_1x.py", **keys)


def _ssd(family: str, result: str = "", **arguments: Any) -> Row:
    return Row(ssd_isb_row, {"family": family, **arguments}, result)


def _semantic(result: str, **arguments: Any) -> Row:
    return Row(semantic_row, arguments, result)


_FAMILIES = {
    "Single-Branch": _ssd("single_branch", "Single-Branch"),
    "Single-Branch, depth 0.75": _ssd(
        "single_branch", "Single-Branch, depth 0.75", depth_multiplier=0.75
    ),
    "Single-Branch, FCN16": _ssd("single_branch", "Single-Branch, FCN16", skips=1),
    "Single-Shape": _ssd("single_shape", "Single-Shape"),
    "Single-Shape+": _ssd("single_shape_plus", "Single-Shape+"),
    "Multi-Shape": _ssd("multi_shape", "Multi-Shape"),
    "Multi-Shape, depth 0.75": _ssd(
        "multi_shape", "Multi-Shape, depth 0.75", depth_multiplier=0.75
    ),
    "Multi-Shape, FCN16": _ssd("multi_shape", "Multi-Shape, FCN16", skips=1),
    "Multi-Shape, NewShapes": _ssd("multi_shape_new", "Multi-Shape, NewShapes"),
    "Multi-Shape, SmallShapes": _ssd("multi_shape_small", "Multi-Shape, SmallShapes"),
    "Single-Branch, norms folded": _ssd("single_branch", mode="folded"),
    "Multi-Shape, norms folded": _ssd("multi_shape", mode="folded"),
    "Multi-Shape, detector compiled": _ssd("multi_shape", mode="compiled"),
    "Multi-Shape, bfloat16": _ssd("multi_shape", mode="bf16"),
}
_COUNTS = {
    f"{name}, {count} boxes": _ssd(family, boxes=count)
    for count in (10, 30, 100)
    for name, family in (
        ("1 branch", "single_branch"),
        ("7 branches", "multi_shape_new"),
        ("10 branches", "multi_shape"),
    )
}

TABLES: dict[str, Table] = {
    "extractors": Table(
        "two_stage",
        "RoI extractors in Mask R-CNN R50-FPN",
        {
            "Mask R-CNN": _d2(_R50_FPN),
            "Mask R-CNN, poolers replaced": _d2(_R50_FPN, fused=True),
            "multi-scale subnetwork": _d2(
                "configs/d2/mask_rcnn_multiscale_R_101_FPN_1x.py", **{_DEPTH: 50}
            ),
            "GRoIE": _groie(),
            "GRoIE, linear": _groie(aggregation="linear"),
            "GRoIE, depthwise": _groie(pre="depthwise5x5"),
            "GRoIE, depthwise and linear": _groie(pre="depthwise5x5", aggregation="linear"),
        },
    ),
    "recursive": Table(
        "two_stage",
        "Systems of several loops, R50-FPN",
        {
            "Mask R-CNN": _d2(_R50_FPN),
            "R3-CNN naive": _d2("configs/d2/r3_cnn_naive_R_50_FPN_1x.py"),
            "HTC": _d2("configs/d2/htc_R_50_FPN_1x.py"),
            "SBR-CNN": _d2("configs/d2/sbr_cnn_R_50_FPN_1x.py"),
        },
    ),
    "subnetwork_c4": Table(
        "two_stage",
        "The multi-scale subnetwork, R50-C4",
        {
            "Mask R-CNN": _d2(f"{_ZOO}mask_rcnn_R_50_C4_1x.py", "Mask R-CNN R50-C4"),
            "multi-scale subnetwork": _d2(
                "configs/d2/mask_rcnn_multiscale_R_50_C4_1x.py", "R50-C4 with the subnetwork"
            ),
        },
        results=("projects/MultiScaleSubnet/results.json", "table4"),
    ),
    "subnetwork_fpn": Table(
        "two_stage",
        "The multi-scale subnetwork, R101-FPN",
        {
            "Mask R-CNN": _d2(_R50_FPN, "Mask R-CNN R101-FPN", **{_DEPTH: 101}),
            "multi-scale subnetwork": _d2(
                "configs/d2/mask_rcnn_multiscale_R_101_FPN_1x.py", "R101-FPN with the subnetwork"
            ),
        },
        results=("projects/MultiScaleSubnet/results.json", "table4"),
    ),
    "comask": Table(
        "comask",
        "CoMask R50-FPN by branches of its neck",
        {
            "Mask R-CNN": _d2(_R50_FPN, "Mask R-CNN"),
            "CoMask_1": _d2("projects/CoMask/configs/comask1_R_50_FPN_2x.py", "CoMask_1"),
            "CoMask_2": _d2("projects/CoMask/configs/comask2_R_50_FPN_2x.py", "CoMask_2"),
            "CoMask_4": _d2("configs/d2/comask_R_50_FPN_2x.py", "CoMask_4"),
        },
        results=("projects/CoMask/results.json", "speed"),
    ),
    "ssd_isb": Table(
        "ssd_isb",
        "SSD-ISB at 640×640 px beside Mask R-CNN R101-FPN on as many pixels",
        {
            "Mask R-CNN R101-FPN": _d2(_R50_FPN, **{_DEPTH: 101}),
            "Mask R-CNN R101-FPN, short side 800 px": _d2(
                _R50_FPN, short_side=800, **{_DEPTH: 101}
            ),
            **_FAMILIES,
        },
        Setting(resize=(640, 640)),
        ("projects/SSD-ISB/results.json", "table55"),
    ),
    "ssd_isb_boxes": Table("ssd_isb", "SSD-ISB by branches and boxes", _COUNTS),
    "semantic": Table(
        "semantic",
        "Low-cost semantic segmentation",
        {
            "MobileNet": _semantic("MobileNet", **_HALF),
            "MobileNet FCN16": _semantic("MobileNet FCN16", steps=1, **_HALF),
            "MobileNet FCN8": _semantic("MobileNet FCN8", steps=2, **_HALF),
            "MobileNet, stride 16": _semantic("MobileNet, stride 16", output_stride=16, **_HALF),
            "MobileNet, stride 8": _semantic("MobileNet, stride 8", output_stride=8, **_HALF),
            "SqueezeNet": _semantic("SqueezeNet", encoder="squeezenet"),
            "SqueezeNet FCN8": _semantic("SqueezeNet FCN8", encoder="squeezenet", steps=1),
            "SqueezeNet, stride 8": _semantic(
                "SqueezeNet, stride 8", encoder="squeezenet", output_stride=8
            ),
        },
        Setting(image=(1024, 2048)),
        ("projects/LowCostSemSeg/results.json", "table4_2"),
    ),
}
GROUPS = sorted({table.group for table in TABLES.values()})
