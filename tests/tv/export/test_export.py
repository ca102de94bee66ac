"""Exported files give what the model gives: for images of any size and any number of boxes."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from tiny_run import TINY
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import nms

from segroi._extension import is_built
from segroi.tv.evaluate import detect
from segroi.tv.export import FORMATS, check_parity, export_model, exportable, load_exported
from segroi.tv.export.rcnn import paste_probabilities, survivors
from segroi.tv.models import build_model
from segroi.utils.suggest import UsageError

pytestmark = pytest.mark.skipif(not is_built(), reason="there are no operators to export")
SIZES = ((90, 130), (80, 66), (7, 60))  # height, width
INFO = {"categories": [{"id": 4, "name": "red"}, {"id": 9, "name": "green"}]}


def tiny(name="mask_rcnn_groie", **changes):
    torch.manual_seed(0)
    settings = {"backbone": "resnet10", "size": 96, "max_size": 160, "score_threshold": 0.3}
    arguments = {**TINY, **settings, **changes}
    model = build_model(name, 2, **arguments).eval()
    for module in model.modules():
        if hasattr(module, "gamma"):  # attention that starts as the identity would hide mistakes
            torch.nn.init.constant_(module.gamma, 0.5)
    return model


def blind(model):
    """The model, made to see nothing."""
    predictor = model.roi_heads.box_predictor.cls_score
    torch.nn.init.zeros_(predictor.weight)
    with torch.no_grad():
        predictor.bias.copy_(torch.tensor([50.0, -50.0, -50.0]))
    return model


def assert_same(model, other, sizes=SIZES):
    for size in sizes:
        image = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            want, got = model([image])[0], other([image])[0]
        assert set(got) == set(want) and len(want["boxes"]) > 0
        for name, value in want.items():
            assert got[name].dtype == value.dtype
            torch.testing.assert_close(got[name], value, rtol=1e-4, atol=2e-3)


class OneImage(torch.nn.Module):
    """An exportable module, called as a model is, without any export."""

    def __init__(self, model):
        super().__init__()
        self.module = exportable(model)

    def forward(self, images):
        return [dict(zip(self.module.outputs, self.module(image))) for image in images]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("faster_rcnn", {}),
        ("mask_rcnn", {"class_agnostic": True, "head_norm": "group"}),
        ("mask_rcnn_groie", {"extractor_args": {"aggregation": "concat", "pre": "none"}}),
        (
            "mask_rcnn",
            {"extractor": "MultiScaleSubnetwork", "extractor_args": {"out_channels": 16}},
        ),
    ],
)
def test_what_is_exported_is_the_model(name, changes):
    model = tiny(name, **changes)
    assert_same(model, OneImage(model))
    with torch.inference_mode():
        found = OneImage(blind(model))([torch.rand(3, 40, 50)])[0]
    assert found["boxes"].shape == (0, 4)
    assert "masks" not in found or found["masks"].shape == (0, 1, 40, 50)


@pytest.fixture(scope="module", params=["torch-export", "torchscript"])
def of_one_size(request, tmp_path_factory):
    """A model and its file for images of one size."""
    model, path = tiny(), tmp_path_factory.mktemp("exported") / f"model{FORMATS[request.param]}"
    export_model(model, path, request.param, INFO, SIZES[0])
    return model, path


def test_a_file_of_one_size(of_one_size):
    model, path = of_one_size
    loaded = load_exported(path)
    assert_same(model, loaded, SIZES[:1])
    assert loaded.info["categories"] == INFO["categories"]
    with pytest.raises(UsageError, match="for images of 90 x 130 px .height, width., got 40 x 33"):
        loaded([torch.rand(3, 40, 33)])


def test_a_file_that_finds_nothing(of_one_size):
    """The number of boxes of the example image is not the number of the file."""
    loaded = load_exported(of_one_size[1])
    weights = {name.rpartition("box_predictor.")[2]: p for name, p in loaded.run.named_parameters()}
    with torch.no_grad():
        weights["cls_score.weight"].zero_()
        weights["cls_score.bias"].copy_(torch.tensor([50.0, -50.0, -50.0]))
    with torch.inference_mode():
        found = loaded([torch.rand(3, *SIZES[0])])[0]
    assert found["boxes"].shape == (0, 4) and found["masks"].shape == (0, 1, *SIZES[0])


@pytest.mark.slow
def test_torch_export_of_any_size(tmp_path):
    model = tiny()
    path = export_model(model, tmp_path / "model.pt2", "torch-export", INFO)
    assert_same(model, load_exported(path), SIZES[:2])


@pytest.mark.slow
def test_onnx_of_any_size(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = tiny()
    path = export_model(model, tmp_path / "new" / "model.onnx", "onnx", INFO)
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""} and not graph.functions
    assert [o.name for o in graph.graph.output] == ["boxes", "labels", "scores", "masks"]
    notes = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(notes["classes"]) == ["red", "green"]
    loaded = load_exported(path)
    assert_same(model, loaded)
    assert [len(d["boxes"]) > 0 for d in detect(loaded, [torch.rand(3, 50, 60)])] == [True]
    parity = check_parity(model, loaded, torch.rand(3, 60, 80))
    assert parity.ok and parity.counts[0] == parity.counts[1] > 0
    assert not check_parity(blind(tiny()), loaded, torch.rand(3, 60, 80)).differences["unmatched"]
    assert not check_parity(tiny(anchor_scale=8.0), loaded, torch.rand(3, 60, 80)).ok


def test_pasting_is_that_of_torchvision():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(9, 2, generator=generator) * 60 - 10
    boxes = torch.cat([corner, corner + torch.rand(9, 2, generator=generator) * 50], dim=1)
    boxes[0, 2:] = boxes[0, :2]
    masks = torch.rand(9, 28, 28, generator=generator)
    want = paste_masks_in_image(masks[:, None], boxes, (48, 64))
    torch.testing.assert_close(paste_probabilities(masks, boxes, (48, 64)), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_suppression_of_any_number_of_boxes(count):
    generator = torch.Generator().manual_seed(count)
    boxes = torch.rand(count, 4, generator=generator) * 20
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.rand(count, generator=generator)
    assert torch.equal(survivors(boxes, scores, 0.5), nms(boxes, scores, 0.5))


@pytest.mark.parametrize(
    ("name", "to", "options", "said"),
    [
        ("x.onnx", "onxn", {}, "unknown format 'onxn': did you mean onnx"),
        ("x.pt", "onnx", {}, "a file of format onnx ends in .onnx"),
        ("x.onnx", "onnx", {"opset": 11}, "opset 11 cannot be written: 18 to 23"),
        ("x.ts", "torchscript", {}, "--image-size"),
        ("x.pt2", "torch-export", {"image_size": (0, 4)}, "must be positive"),
        ("there.pt2", "torch-export", {}, "exists: --force replaces it"),
    ],
)
def test_requests_that_are_refused(name, to, options, said, tmp_path):
    (tmp_path / "there.pt2").write_text("kept")
    with pytest.raises(UsageError, match=said):
        export_model(torch.nn.Identity(), tmp_path / name, to, INFO, **options)
    assert (tmp_path / "there.pt2").read_text() == "kept"


def test_models_and_packages_that_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="class Identity cannot be exported"):
        export_model(torch.nn.Identity(), tmp_path / "x.pt2", "torch-export", INFO)
    drawn = tiny(extractor_args={"aggregation": "random"})
    with pytest.raises(UsageError, match="draws a level of every box anew"):
        export_model(drawn, tmp_path / "x.pt2", "torch-export", INFO)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match="needs the package onnxscript: pip install"):
        export_model(drawn, tmp_path / "x.onnx", "onnx", INFO)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    for name, said in (
        ("x.pth", "is no exported model"),
        ("x.pt2", "cannot be read"),
        ("x.ts", "cannot be read"),
        ("missing.onnx", "does not exist"),
    ):
        if name != "missing.onnx":
            (tmp_path / name).write_text("nothing of the kind")
        with pytest.raises(UsageError, match=said):
            load_exported(tmp_path / name)
    (tmp_path / "x.onnx").write_text("nothing of the kind")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="pip install onnxruntime"):
        load_exported(tmp_path / "x.onnx")
