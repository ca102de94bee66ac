import sys

import pytest
import torch

from segroi._extension import is_built
from segroi.ops import CropAndResize, MultiLevelRoIAlign, multi_level_roi_align
from segroi.utils.testing import random_pyramid, random_rois

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from segroi.ops.onnx import translation_table  # noqa: E402

pytestmark = pytest.mark.skipif(not is_built(), reason="there are no operators to export")
IMAGE, SCALES = (96, 128), (1 / 4, 1 / 8, 1 / 16)
ANY = {0: torch.export.Dim.DYNAMIC}


def session(module, inputs, dynamic_shapes, opset=None):
    """The exported graph in onnxruntime, as a function of tensors."""
    program = torch.onnx.export(
        module.eval(),
        inputs,
        dynamo=True,
        dynamic_shapes=dynamic_shapes,
        opset_version=opset,
        verbose=False,
        custom_translation_table=translation_table(),
    )
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    run = runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [i.name for i in run.get_inputs()]

    def call(*tensors):
        feeds = {name: t.numpy() for name, t in zip(names, tensors, strict=True)}
        return torch.from_numpy(run.run(None, feeds)[0])

    return call


def rois_of(count):
    """RoIs of all levels; the first is a point, the third inverted, when there are that many."""
    rois = random_rois(count, IMAGE, 2, (4, 300), clip=False, seed=count)
    rois[:1, 3:] = rois[:1, 1:3]
    rois[2:3, 3] = rois[2:3, 1] - 5
    return rois


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("reduce", ["select", "stack", "sum", "concat"])
def test_multi_level_roi_align(reduce, aligned, ratio):
    maps = random_pyramid(IMAGE, 3, 2, SCALES)
    module = MultiLevelRoIAlign((3, 4), SCALES, ratio, aligned, reduce, 40, 3)
    run = session(module, (maps, rois_of(5)), ([None] * 3, ANY))
    # A box without extent is exported as one of 2^-13 cells.
    tolerance = 1e-3 if aligned and not ratio else 2e-5
    for count in (0, 1, 7, 40):
        rois = rois_of(count)
        want = module(maps, rois)
        got = run(*maps, rois)
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance)
        torch.testing.assert_close(got[3:], want[3:], rtol=0, atol=2e-5)


class GivenLevels(torch.nn.Module):
    def forward(self, a, b, c, rois, levels):
        maps = [a, b, c]
        return multi_level_roi_align(maps, rois, 3, SCALES, 2, levels=levels, on_invalid="zero")


def test_given_levels_and_what_does_not_exist():
    maps = random_pyramid(IMAGE, 3, 2, SCALES)
    rois = random_rois(7, IMAGE, 2, (4, 90))
    levels = torch.tensor([2, 0, 1, 3, -1, 0, 0], dtype=torch.int32)
    rois[5, 0], rois[6, 0] = 2, 0.5
    run = session(GivenLevels(), (*maps, rois[:3], levels[:3]), (None, None, None, ANY, ANY))
    for count in (0, 1, 7):
        want = GivenLevels()(*maps, rois[:count], levels[:count])
        torch.testing.assert_close(
            run(*maps, rois[:count], levels[:count]), want, rtol=0, atol=2e-5
        )
        assert not want[3:].any() and want[:3].any(dim=(1, 2, 3)).all()


def test_boxes_that_are_not_finite_give_0():
    maps = random_pyramid(IMAGE, 3, 2, SCALES)
    module = MultiLevelRoIAlign(3, SCALES, 2, reduce="sum", on_invalid="zero")
    rois = random_rois(4, IMAGE, 2, (4, 90))
    rois[0, 3], rois[1, 1], rois[2, 0] = float("inf"), float("nan"), -1
    run = session(module, (maps, rois), ([None] * 3, ANY))
    got = run(*maps, rois)
    assert not got[:3].any()
    torch.testing.assert_close(got, module(maps, rois), rtol=0, atol=2e-5)


@pytest.mark.parametrize("area", [1.0, 4.0])
def test_levels_change_at_the_same_box(area):
    """A box exactly of the canonical area, and the next smaller one in float32."""
    maps = [torch.full((1, 1, 9, 9), float(level)) for level in range(3)]
    side = torch.tensor(40.0 * area**0.5)
    sides = torch.stack([side, torch.nextafter(side, torch.tensor(0.0))])
    rois = torch.stack([sides * 0, sides * 0, sides * 0, sides, sides], 1)
    module = MultiLevelRoIAlign(1, SCALES, 1, canonical_size=40, canonical_level=3)
    got = session(module, (maps, rois), ([None] * 3, ANY))(*maps, rois)
    assert torch.equal(got, module(maps, rois))
    assert got[0] == got[1] + 1


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.float32, 2e-5), (torch.float64, 1e-10)]
)
def test_dtypes_of_the_maps(dtype, tolerance):
    maps = random_pyramid(IMAGE, 3, 2, SCALES, dtype)
    rois = random_rois(7, IMAGE, 2, (4, 90))
    rois = rois.double() if dtype == torch.float64 else rois
    module = MultiLevelRoIAlign(3, SCALES, 2, canonical_size=40, canonical_level=3)
    got = session(module, (maps, rois), ([None] * 3, ANY))(*maps, rois)
    torch.testing.assert_close(got, module(maps, rois), rtol=tolerance, atol=tolerance)


def test_images_of_any_size_and_number():
    module = MultiLevelRoIAlign(3, SCALES, 2, canonical_size=40, canonical_level=3)
    maps = random_pyramid(IMAGE, 3, 2, SCALES)
    any_size = {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    run = session(module, (maps, rois_of(5)), ([any_size] * 3, ANY))
    maps = random_pyramid((64, 200), 3, 4, SCALES, seed=1)
    rois = random_rois(9, (64, 200), 4, (4, 90))
    torch.testing.assert_close(run(*maps, rois), module(maps, rois), rtol=0, atol=2e-5)


def crop_inputs(count, coordinates, maps):
    """Boxes inside, across the border, beyond it and mirrored; the first has no extent."""
    g = torch.Generator().manual_seed(count)
    scale = maps.new_tensor(maps.shape[2:]).flip(0).repeat(2) if coordinates == "aligned" else 1
    boxes = (torch.rand(count, 4, generator=g) * 2 - 0.5) * scale
    boxes[:1, 2:] = boxes[:1, :2]
    return boxes, torch.randint(0, maps.shape[0], (count,), generator=g)


@pytest.mark.parametrize(
    ("coordinates", "fill", "pool", "size", "shape"),
    [
        ("aligned", 0.0, 1, (4, 6), (2, 3, 9, 13)),
        ("aligned", 0.0, 2, (4, 6), (2, 3, 9, 13)),
        ("aligned", 0.0, 1, 1, (3, 1, 1, 5)),
        ("tf", 0.0, 1, (4, 6), (2, 3, 9, 13)),
        ("tf", -1.5, 2, (4, 6), (2, 3, 9, 13)),
        ("tf", -1.5, 1, 1, (2, 3, 9, 13)),
        ("tf", -1.5, 3, (3, 6), (3, 1, 1, 5)),
    ],
)
def test_crop_and_resize(coordinates, fill, pool, size, shape):
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    module = CropAndResize(size, "bilinear", fill, coordinates, pool)
    run = session(module, (maps, *crop_inputs(5, coordinates, maps)), (None, ANY, ANY))
    for count in (0, 1, 7, 60):
        boxes, index = crop_inputs(count, coordinates, maps)
        want = module(maps, boxes, index)
        torch.testing.assert_close(run(maps, boxes, index), want, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("coordinates", "opset"), [("aligned", 18), ("tf", 18), ("tf", 20)])
def test_crops_of_half_maps_and_of_no_image(coordinates, opset):
    maps = torch.randn(2, 3, 9, 13, generator=torch.Generator().manual_seed(0)).half()
    fill = 1.0 if coordinates == "tf" else 0.0  # a box that does not count is no fill either
    module = CropAndResize(4, "bilinear", fill, coordinates, on_invalid="zero")
    boxes, index = crop_inputs(9, coordinates, maps)
    boxes = boxes.float()
    boxes[0, 1], index[1], index[2] = float("nan"), 2, -1
    run = session(module, (maps, boxes, index.int()), (None, ANY, ANY), opset)
    got = run(maps, boxes, index.int())
    torch.testing.assert_close(got, module(maps, boxes, index.int()), rtol=2e-3, atol=2e-3)
    assert not got[:3].any() and got[3:].any()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "nearest"}, "crop_and_resize: method must be 'bilinear' for ONNX, got"),
        (
            {"extrapolation_value": 2.0, "coordinates": "aligned"},
            "crop_and_resize: extrapolation_value must be 0 for ONNX in 'aligned' coordinates",
        ),
    ],
)
def test_refuses_what_standard_operators_cannot(options, text):
    maps = torch.ones(1, 1, 4, 4)
    inputs = (maps, torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as caught:
        session(CropAndResize(2, **options), inputs, (None, ANY, ANY))
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, ValueError) and str(error).startswith(text)


def test_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript"):
        translation_table()


def test_needs_the_built_operators(monkeypatch):
    monkeypatch.setattr("segroi.ops.onnx.is_built", lambda: False)
    with pytest.raises(RuntimeError, match="the extension must be built"):
        translation_table()
