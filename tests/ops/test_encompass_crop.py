from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.ops import roi_align

from segroi import _extension
from segroi.ops import (
    EncompassCrop,
    encompass_crop,
    encompass_crop_packed,
    encompassing_boxes,
    stack_rows,
)
from segroi.ops.reference import encompass_crop as reference

GRID = (10, 12)
compiled = pytest.mark.skipif(not _extension.is_built(), reason="extension not built")


def random_cells(k, grid=GRID, seed=0, largest=6):
    generator = torch.Generator().manual_seed(seed)
    size = torch.randint(1, largest + 1, (k, 2), generator=generator)
    room = torch.tensor([grid[1], grid[0]]) - size + 1
    corner = (torch.rand(k, 2, generator=generator) * room).long()
    image = torch.randint(0, 2, (k,), generator=generator)
    return torch.cat([corner, corner + size], dim=1), image


def pyramid(dtype=torch.float32, channels_last=False, factors=(1, 2, 4), channels=(5, 3, 2)):
    generator = torch.Generator().manual_seed(1)
    maps = []
    for f, c in zip(factors, channels):
        m = torch.randn(2, c, GRID[0] * f, GRID[1] * f, generator=generator, dtype=torch.float64)
        m = (m * 8).to(dtype)
        maps.append(m.contiguous(memory_format=torch.channels_last) if channels_last else m)
    return maps


def flatten(crops):
    return [t for stack in crops for t in stack]


# ---- boxes to cells ----


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ((32.0, 64.0, 96.0, 128.0), (1, 2, 3, 4)),  # corners on grid lines stay in their cells
        ((31.99, 63.99, 96.01, 128.01), (0, 1, 4, 5)),
        ((32.00001, 64.00001, 95.99999, 127.99999), (1, 2, 3, 4)),
        ((0.0, 0.0, 640.0, 640.0), (0, 0, 20, 20)),
        ((-50.0, -1e30, 1e30, 700.0), (0, 0, 20, 20)),
        ((32.0, 32.0, 32.0, 32.0), (1, 1, 2, 2)),  # no area: one cell
        ((640.0, 640.0, 640.0, 640.0), (19, 19, 20, 20)),
        ((900.0, -90.0, 950.0, -80.0), (19, 0, 20, 1)),  # outside: the nearest cell
        ((100.0, 100.0, 50.0, 40.0), (3, 3, 4, 4)),  # inverted: the cell of its corner
        ((-1e-30, 0.0, 1e-30, 5.0), (0, 0, 1, 1)),
        ((2.0**24, 0.0, 2.0**24 + 2, 32.0), (19, 0, 20, 1)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_rule(box, cells, dtype):
    boxes = torch.tensor([box], dtype=dtype)
    assert encompassing_boxes(boxes, (640, 640), 20).tolist() == [list(cells)]
    assert reference.encompassing_boxes(boxes, (640, 640), (20, 20)).tolist() == [list(cells)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-2000, 2000, width=32), min_size=4, max_size=4),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(1, 3000),
)
def test_encompassing_boxes_contain_and_are_idempotent(corners, rows, columns, height):
    boxes = torch.tensor([corners])
    size = (height, 640)
    cells = encompassing_boxes(boxes, size, (rows, columns))
    assert torch.equal(cells, reference.encompassing_boxes(boxes, size, (rows, columns)))
    x0, y0, x1, y1 = cells[0].tolist()
    assert 0 <= x0 < x1 <= columns
    assert 0 <= y0 < y1 <= rows
    cell = torch.tensor([640 / columns, height / rows] * 2, dtype=torch.float64)
    grown = cells.double() * cell
    assert torch.equal(encompassing_boxes(grown, size, (rows, columns)), cells)
    inside = boxes.double().clamp(min=0).minimum(torch.tensor([640, height] * 2))
    if corners[2] >= corners[0] and corners[3] >= corners[1]:
        slack = cell * 2e-6 + 1e-9
        assert (grown[:, :2] <= inside[:, :2] + slack[:2]).all()
        assert (grown[:, 2:] >= inside[:, 2:] - slack[2:]).all()


def test_encompassing_boxes_of_wrong_values():
    boxes = torch.tensor([[0.0, 0.0, float("nan"), 5.0], [0.0, 0.0, 5.0, float("inf")]])
    for function in (encompassing_boxes, reference.encompassing_boxes):
        with pytest.raises(ValueError, match="boxes must be finite"):
            function(boxes, (640, 640), (20, 20))
    assert encompassing_boxes(boxes, (640, 640), 20, on_invalid="zero").tolist() == [[0] * 4] * 2
    with pytest.raises(TypeError, match="float32 or float64"):
        encompassing_boxes(boxes.half(), (640, 640), 20)
    with pytest.raises(ValueError, match=r"Tensor\[K, 4\]"):
        encompassing_boxes(boxes[:, :3], (640, 640), 20)
    with pytest.raises(ValueError, match="grid_size"):
        encompassing_boxes(torch.zeros(1, 4), (640, 640), 0)
    assert encompassing_boxes(torch.zeros(0, 4), (640, 640), 20).shape == (0, 4)


# ---- stacks ----


def test_stack_rows_keeps_the_order_of_boxes():
    branch = torch.tensor([1, 0, -1, 1, 1, 0])
    assert stack_rows(branch, [2, 4]).tolist() == [1, 5, 0, 3, 4, -1]
    with pytest.raises(ValueError, match="branch"):
        stack_rows(branch, [2, 2])
    with pytest.raises(ValueError, match="branch"):
        stack_rows(torch.tensor([2]), [1, 1])
    assert stack_rows(branch, [2, 2], "zero").tolist() == [1, 5, 0, 3]
    assert stack_rows(torch.tensor([2, -7]), [1, 1], "zero").tolist() == [-1, -1]


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_stacks_equal_the_reference(dtype, channels_last):
    maps = pyramid(dtype, channels_last)
    cells, image = random_cells(23)
    branch = torch.arange(23) % 3 - 1
    shapes, rows = [(6, 6), (7, 8)], [8, 9]  # one row more than boxes in the second
    crops = encompass_crop(maps, cells, image, shapes, branch, rows)
    source = stack_rows(branch, rows)
    expected = reference.encompass_crop(maps, cells, image, source, shapes, rows, GRID)
    for ours, reference_crop in zip(flatten(crops), expected):
        assert torch.equal(ours, reference_crop)
        format_ = torch.channels_last if channels_last else torch.contiguous_format
        assert ours.is_contiguous(memory_format=format_)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 17])
def test_every_row_width(width):
    features = torch.arange(3 * 20 * 20, dtype=torch.uint8).view(1, 3, 20, 20)
    cells = torch.tensor([[2, 3, 2 + width, 9]])
    crop = encompass_crop(features, cells, torch.zeros(1).int(), [(8, 18)])[0]
    assert torch.equal(crop[0, :, :6, :width], features[0, :, 3:9, 2 : 2 + width])
    assert crop.sum() == features[0, :, 3:9, 2 : 2 + width].sum()


def test_large_outputs_are_streamed_alike():
    features = torch.randn(1, 512, 20, 20)
    cells, image = random_cells(60, (20, 20), largest=14)
    small = encompass_crop(features, cells[:1], image[:1] * 0, [(14, 14)])[0]
    for maps in (features, features.contiguous(memory_format=torch.channels_last)):
        crops = encompass_crop(maps, cells, image * 0, [(14, 14)])[0]  # 24 MB
        assert torch.equal(crops[:1], small)
        boxes = zip(crops, cells.tolist())
        for crop, (x0, y0, x1, y1) in boxes:
            assert torch.equal(crop[:, : y1 - y0, : x1 - x0], features[0, :, y0:y1, x0:x1])
            assert crop[:, y1 - y0 :].count_nonzero() == 0
            assert crop[:, :, x1 - x0 :].count_nonzero() == 0


def test_crop_equals_an_aligned_roi_align():
    features = pyramid(channels=(5,), factors=(1,))[0]
    cells, image = random_cells(9)
    crops = encompass_crop(features, cells, image, [(6, 6)])[0]
    for crop, box, n in zip(crops, cells, image):
        h, w = int(box[3] - box[1]), int(box[2] - box[0])
        rois = torch.cat([n[None], box])[None].float()
        aligned = roi_align(features, rois, (h, w), sampling_ratio=1, aligned=True)[0]
        torch.testing.assert_close(crop[:, :h, :w], aligned, rtol=0, atol=1e-5)


def test_strides_are_read_as_they_are():
    wide = torch.randn(2, 8, 10, 20)
    cells, image = random_cells(5, (10, 12))
    views = [
        wide[:, 2:7, :, 4:16],
        wide.transpose(2, 3)[:, :, :12, :10].transpose(2, 3),
        wide[:, :1, :, :12].expand(2, 5, 10, 12),
        wide[:, ::2, :, :12],
    ]
    for view in views:
        ours = encompass_crop(view, cells, image, [(6, 6)])[0]
        assert torch.equal(ours, encompass_crop(view.contiguous(), cells, image, [(6, 6)])[0])


def test_out_is_written_in_place():
    maps = pyramid()
    cells, image = random_cells(6)
    fresh = encompass_crop(maps, cells, image, [(6, 6)])
    out = [[torch.full_like(t, 7.0) for t in stack] for stack in fresh]
    pointers = [t.data_ptr() for t in flatten(out)]
    result = encompass_crop(maps, cells, image, [(6, 6)], out=out)
    for ours, expected, pointer in zip(flatten(result), flatten(fresh), pointers):
        assert torch.equal(ours, expected)
        assert ours.data_ptr() == pointer
    with pytest.raises(ValueError, match="out must"):
        encompass_crop(maps[0], cells, image, [(6, 6)], out=[torch.empty(6, 5, 6, 7)])
    with pytest.raises(ValueError, match="out must not"):
        encompass_crop(maps[0].requires_grad_(), cells, image, [(6, 6)], out=[fresh[0][0]])


@pytest.mark.parametrize("channels_last", [False, True])
def test_packed_equals_the_reference(channels_last):
    maps = pyramid(channels_last=channels_last)
    cells, image = random_cells(11)
    values, offsets = encompass_crop_packed(maps, cells, image)
    area = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])
    assert torch.equal(offsets.diff(), area)
    expected = reference.encompass_crop_packed(maps, cells, image, GRID)
    for ours, reference_values in zip(values, expected):
        assert torch.equal(ours, reference_values)
    jagged = torch.nested.nested_tensor_from_jagged(values[0].contiguous(), offsets)
    assert jagged.size(0) == 11


# ---- gradients ----


@compiled
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradcheck(channels_last):
    maps = [
        m.requires_grad_()
        for m in pyramid(torch.float64, channels_last, factors=(1, 2), channels=(2, 1))
    ]
    cells = torch.tensor([[0, 0, 2, 3], [1, 1, 4, 3], [0, 1, 3, 2], [5, 5, 6, 6]])
    image = torch.tensor([0, 0, 1, 0])
    branch = torch.tensor([0, 1, 0, 1])

    def padded(*features):
        return tuple(flatten(encompass_crop(features, cells, image, [(3, 3), (2, 4)], branch)))

    def packed(*features):
        return tuple(encompass_crop_packed(features, cells, image)[0])

    for function in (padded, packed):
        assert torch.autograd.gradcheck(function, maps, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, maps, fast_mode=True)


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_shared_pixels_sum_and_threads_do_not_matter(dtype, channels_last):
    cells = torch.tensor([[0, 0, 6, 6]] * 9)
    image = torch.zeros(9, dtype=torch.int32)
    gradients = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        features = pyramid(dtype, channels_last, (2,), (3,))[0].requires_grad_()
        crops = encompass_crop(features, cells, image, [(6, 6)], grid_size=GRID)[0]
        weights = torch.linspace(0.1, 1, 9)[:, None, None, None].to(dtype)
        (crops * weights).sum().backward()
        gradients.append(features.grad)
        torch.set_num_threads(before)
    assert torch.equal(*gradients)
    expected = torch.linspace(0.1, 1, 9).to(dtype).float().sum().to(dtype)  # rounded once
    assert (gradients[0][0, :, :12, :12] == expected).all()
    assert gradients[0][1].count_nonzero() == 0


def test_rows_without_a_box_give_no_gradient():
    features = torch.randn(1, 2, 10, 12, requires_grad=True)
    cells = torch.tensor([[0, 0, 2, 2], [3, 3, 20, 20], [4, 4, 5, 5], [0, 0, 1, 1]])
    image = torch.tensor([0, 0, 1, 0])
    branch = torch.tensor([0, 0, 0, -1])
    crops = encompass_crop(features, cells, image, [(6, 6)], branch, [4], on_invalid="zero")[0]
    assert crops[1:].count_nonzero() == 0
    crops.sum().backward()
    assert features.grad.sum() == 2 * 4


# ---- wrong values ----

BIG = 2**63 - 1


@pytest.mark.parametrize(
    ("cells", "image"),
    [
        ([2, 2, 2, 5], 0),
        ([5, 2, 3, 4], 0),
        ([-1, 0, 2, 2], 0),
        ([0, 0, 13, 2], 0),
        ([0, 0, 2, 11], 0),
        ([-BIG, -BIG, BIG, BIG], 0),
        ([20, 20, 24, 24], 0),
        ([0, 0, 7, 2], 0),  # wider than the shape
        ([0, 0, 2, 2], 2),
        ([0, 0, 2, 2], -1),
        ([0, 0, 2, 2], BIG),
        ([0, 0, 2, 2], -BIG),
    ],
)
def test_wrong_boxes(cells, image):
    features = pyramid()
    cells, image = torch.tensor([cells, [0, 0, 1, 1]]), torch.tensor([image, 0])
    with pytest.raises(ValueError, match="encompass_crop: "):
        encompass_crop(features, cells, image, [(6, 6)])
    crops = flatten(encompass_crop(features, cells, image, [(6, 6)], on_invalid="zero"))
    assert all(c[0].count_nonzero() == 0 and c[1].count_nonzero() > 0 for c in crops)
    if cells[0].tolist() != [0, 0, 7, 2]:  # the packed form has no shape to exceed
        with pytest.raises(ValueError, match="encompass_crop"):
            encompass_crop_packed(features, cells, image)
        _, offsets = encompass_crop_packed(features, cells, image, on_invalid="zero")
        assert offsets.tolist() == [0, 0, 1]


def test_wrong_arguments():
    features, (cells, image) = torch.randn(2, 3, 10, 12), random_cells(4)
    cases = [
        (ValueError, (features[0], cells, image, [(6, 6)])),
        (ValueError, ([], cells, image, [(6, 6)])),
        (ValueError, ([features, torch.randn(2, 3, 15, 12)], cells, image, [(6, 6)])),
        (TypeError, ([features, torch.randn(2, 3, 20, 24).half()], cells, image, [(6, 6)])),
        (ValueError, ([features, torch.randn(1, 3, 20, 24)], cells, image, [(6, 6)])),
        (TypeError, (features, cells.float(), image, [(6, 6)])),
        (TypeError, (features, cells, image.float(), [(6, 6)])),
        (ValueError, (features, cells[:, :3], image, [(6, 6)])),
        (ValueError, (features, cells, image[:3], [(6, 6)])),
        (ValueError, (features, cells, image, [(6, 6), (7, 7)])),
        (ValueError, (features, cells, image, [(0, 6)])),
        (ValueError, (features, cells, image, [(6, 6)], None, [3])),
        (ValueError, (features, cells, image, [(6, 6)], None, [-1])),
        (ValueError, (features, cells, image, [(6, 6)], image[:2])),
    ]
    for error, arguments in cases:
        with pytest.raises(error, match="encompass_crop|stack_rows"):
            encompass_crop(*arguments)
    with pytest.raises(ValueError, match="on_invalid"):
        encompass_crop(features, cells, image, [(6, 6)], on_invalid="ignore")


def test_no_boxes():
    maps = [m.requires_grad_() for m in pyramid()]
    cells, image = torch.zeros(0, 4).long(), torch.zeros(0).long()
    crops = encompass_crop(maps, cells, image, [(6, 6), (2, 1)], image)
    assert [tuple(t.shape) for t in crops[1]] == [(0, 5, 2, 1), (0, 3, 4, 2), (0, 2, 8, 4)]
    padded = encompass_crop(maps, cells, image, [(6, 6)], rows=[2])
    values, offsets = encompass_crop_packed(maps, cells, image)
    assert values[0].shape == (0, 5)
    assert offsets.tolist() == [0]
    sum(t.sum() for t in [*flatten(crops), *flatten(padded), *values]).backward()
    assert all(m.grad.count_nonzero() == 0 for m in maps)


# ---- torch's machinery ----


@compiled
def test_opcheck():
    maps = [m.requires_grad_() for m in pyramid(factors=(1, 2), channels=(3, 2))]
    cells, image = random_cells(5)
    source = torch.tensor([3, -1, 0, 1])
    plan = [[6, 6, 7, 8], [2, 2], list(GRID)]
    ops = torch.ops.segroi
    torch.library.opcheck(
        ops.encompassing_boxes.default, (torch.rand(5, 4) * 90, [90, 90], [9, 9], False)
    )
    torch.library.opcheck(ops.stack_rows.default, (torch.tensor([0, 1, 0, -1]), [2, 2], False))
    torch.library.opcheck(ops.encompass_crop.default, (maps, cells, image, source, *plan, False))
    crops = ops.encompass_crop(maps, cells, image, source, *plan, False)
    grads = [torch.randn_like(c).requires_grad_() for c in crops]
    sizes = [side for m in maps for side in m.shape]
    torch.library.opcheck(
        ops.encompass_crop_backward.default,
        (grads, cells, image, source, sizes, *plan, False),
    )
    area = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])
    offsets = torch.cat([area.new_zeros(1), area.cumsum(0)])
    total = int(offsets[-1])
    packed = (maps, cells, image, offsets, total, list(GRID), False)
    torch.library.opcheck(ops.encompass_crop_packed.default, packed)
    grads = [torch.randn_like(v).requires_grad_() for v in ops.encompass_crop_packed(*packed)]
    torch.library.opcheck(
        ops.encompass_crop_packed_backward.default,
        (grads, cells, image, offsets, sizes, list(GRID), False),
    )


@compiled
def test_compiles_to_one_graph_for_any_number_of_boxes():
    counter = CompileCounterWithBackend("aot_eager")
    module = EncompassCrop([(6, 6), (7, 8)], rows=[9, 9], on_invalid="zero")

    @torch.compile(fullgraph=True, dynamic=True, backend=counter)
    def run(features, boxes, image, branch):
        cells = encompassing_boxes(boxes, (100, 120), GRID)
        return module(features, cells, image, branch)

    maps = pyramid()
    for k in (9, 11, 17, 1, 0):  # sizes that no other dimension has
        cells, image = random_cells(k)
        boxes = cells.float() * 10
        crops = run(maps, boxes, image, torch.arange(k) % 2)
        expected = module(maps, cells, image, torch.arange(k) % 2)
        for ours, eager in zip(flatten(crops), flatten(expected)):
            assert torch.equal(ours, eager)
        # torch compiles anew for sizes of 0 and 1
        assert k < 2 or counter.frame_count == 1


@compiled
def test_exports_with_a_dynamic_number_of_boxes():
    class Crop(torch.nn.Module):
        def forward(self, features, boxes, image):
            cells = encompassing_boxes(boxes, (100, 120), GRID)
            return encompass_crop(features, cells, image, [(10, 12)])

    k = torch.export.Dim("k")
    features = torch.randn(2, 3, 20, 24)
    cells, image = random_cells(5)
    arguments = (features, cells.float() * 10, image)
    program = torch.export.export(
        Crop(), arguments, dynamic_shapes={"features": None, "boxes": {0: k}, "image": {0: k}}
    )
    for n in (0, 1, 8):
        cells, image = random_cells(n)
        crops = program.module()(features, cells.float() * 10, image)
        assert torch.equal(crops[0], encompass_crop(features, cells, image, [(10, 12)])[0])


@compiled
def test_autocast_leaves_the_dtype():
    features, (cells, image) = torch.randn(2, 3, 10, 12), random_cells(4)
    with torch.autocast("cpu", torch.bfloat16):
        assert encompass_crop(features, cells, image, [(6, 6)])[0].dtype == torch.float32


def test_binding_is_the_dispatcher():
    if not _extension.is_built():
        pytest.skip("extension not built")
    _C = pytest.importorskip("segroi._C", reason="built with another Python")

    boxes = torch.rand(3, 4) * 50
    cells = _C.encompassing_boxes(boxes, [64, 64], [8, 8], False)
    assert torch.equal(cells, encompassing_boxes(boxes, (64, 64), 8))
