"""SSD-ISB and semantic segmentation as files, for images of any size and any number of boxes."""

from __future__ import annotations

import pytest
import torch
from tiny_run import TINY_SSD_ISB

from segroi._extension import is_built
from segroi.tv.export import FORMATS, check_parity, export_model, exportable, load_exported
from segroi.tv.models import build_model
from segroi.utils.suggest import UsageError

pytestmark = pytest.mark.skipif(not is_built(), reason="there are no operators to export")
SIZES = ((90, 130), (80, 66))  # height, width
INFO = {"categories": [{"id": number, "name": str(number)} for number in range(5)]}
FAMILIES = {
    "multi_shape": {},
    "single_branch": {"shapes": [[3, 3]]},
    "single_shape": {"shapes": [[4, 4], [4, 3], [3, 4], [3, 3], [2, 3], [2, 2]]},
    "single_shape_plus": {"shapes": None, "condition_on_box": True, "class_masks": True},
}


def ssd_isb(family):
    torch.manual_seed(0)
    arguments = {**TINY_SSD_ISB, "size": 128, "shapes": None, **FAMILIES[family], "family": family}
    model = build_model("ssd_isb", 2, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that scores and masks differ
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in SIZES]


@pytest.mark.parametrize("threshold", [0.0, 1.0], ids=["boxes", "no box"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_is_exported_is_ssd_isb(family, threshold):
    model = ssd_isb(family)
    model.detector.score_threshold = threshold
    module = exportable(model)
    for image in images():
        found = model([image])[0]
        assert bool(len(found["boxes"])) == (threshold == 0)
        torch.testing.assert_close(dict(zip(module.outputs, module(image))), found)


@pytest.mark.parametrize("name", ["mobilenet_v1_fcn", "squeezenet_fcn"])
@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_files_of_semantic_segmentation(name, to, tmp_path):
    if to == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    resized = name == "squeezenet_fcn" and to == "onnx"
    model = build_model(name, 5, size=64 if resized else 0).eval()
    path = export_model(model, tmp_path / f"x{FORMATS[to]}", to, INFO)
    loaded = load_exported(path)
    for image in images():
        parity = check_parity(model, loaded, image)
        assert parity.ok and parity.counts[0] == image.shape[1]


def test_what_would_be_of_one_size_is_refused(tmp_path):
    model = build_model("squeezenet_fcn", 5, size=64)
    with pytest.raises(UsageError, match="takes one size: give it as --image-size"):
        export_model(model, tmp_path / "x.pt2", "torch-export", INFO)


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_files_of_ssd_isb(to, tmp_path):
    if to == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    model = ssd_isb("single_branch")
    size = SIZES[0] if to == "torchscript" else None
    loaded = load_exported(export_model(model, tmp_path / f"x{FORMATS[to]}", to, INFO, size))
    for image in images()[: 1 if size else None]:
        parity = check_parity(model, loaded, image)
        assert parity.ok and parity.counts[0] == parity.counts[1] > 0
