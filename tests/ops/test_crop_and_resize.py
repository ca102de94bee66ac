from __future__ import annotations

import math

import pytest
import torch
from torch._dynamo.decorators import mark_unbacked
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.ops import roi_align

from segroi.ops import CropAndResize, crop_and_resize
from segroi.ops.crop_and_resize import _COMPILED
from segroi.ops.reference.crop_and_resize import crop_and_resize as reference

built = pytest.mark.skipif(not _COMPILED, reason="the extension is not built")


def make(k=7, n=2, c=3, h=9, w=13, seed=0, dtype=torch.float64, spread=0.3):
    """Maps, boxes normalised as TensorFlow's (some flipped, some partly outside), and indices."""
    g = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, c, h, w, generator=g, dtype=torch.float64).to(dtype)
    boxes = torch.rand(k, 4, generator=g, dtype=torch.float64) * (1 + 2 * spread) - spread
    boxes = boxes.to(dtype if dtype == torch.float64 else torch.float32)
    return maps, boxes, torch.randint(n, (k,), generator=g)


def in_cells(boxes, h, w):
    """The same kind of boxes as xyxy in cells, upright."""
    y = boxes[:, [0, 2]].sort(1).values * h
    x = boxes[:, [1, 3]].sort(1).values * w
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def tensorflow_loop(image, box, size, method, extrapolation):
    """TensorFlow's formula for one box and one channel, sample by sample, in Python floats."""
    height, width = image.shape
    y1, x1, y2, x2 = box

    def position(i, count, a, b, cells):
        if count == 1:
            return 0.5 * (a + b) * (cells - 1)
        return a * (cells - 1) + i * ((b - a) * (cells - 1) / (count - 1))

    crop = torch.empty(*size, dtype=torch.float64)
    for i in range(size[0]):
        for j in range(size[1]):
            y = position(i, size[0], y1, y2, height)
            x = position(j, size[1], x1, x2, width)
            if y < 0 or y > height - 1 or x < 0 or x > width - 1:
                crop[i, j] = extrapolation
            elif method == "nearest":
                crop[i, j] = image[math.floor(y + 0.5), math.floor(x + 0.5)]
            else:
                top, left = math.floor(y), math.floor(x)
                bottom, right = math.ceil(y), math.ceil(x)
                upper = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
                lower = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (
                    x - left
                )
                crop[i, j] = upper + (lower - upper) * (y - top)
    return crop


@pytest.mark.parametrize("op", [crop_and_resize, reference])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3), (14, 14)])
def test_tensorflow_formula(op, method, size):
    maps, boxes, index = make()
    got = op(maps, boxes, index, list(size), method, -3.5)
    for k in range(len(boxes)):
        for c in range(maps.shape[1]):
            want = tensorflow_loop(maps[index[k], c], boxes[k].tolist(), size, method, -3.5)
            torch.testing.assert_close(got[k, c], want, rtol=1e-10, atol=1e-10)


def test_tensorflow_rules():
    """Extrapolation of whole samples, flips, centre of a crop of one, corners sampled."""
    image = torch.arange(12.0).view(1, 1, 3, 4)
    zero = torch.tensor([0])
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert torch.equal(crop_and_resize(image, box, zero, (3, 4)), image)
    assert torch.equal(crop_and_resize(image, box[:, [2, 3, 0, 1]], zero, (3, 4)), image.flip(2, 3))
    assert crop_and_resize(image, box, zero, 1).item() == 5.5
    beyond = crop_and_resize(
        image, torch.tensor([[-0.5, 0.0, 0.5, 1.0]]), zero, (3, 4), extrapolation_value=9.0
    )
    assert torch.equal(beyond[0, 0], torch.stack([torch.full((4,), 9.0), *image[0, 0, :2]]))
    just = torch.tensor([[-1e-4, 0.0, 1.0, 1.0]])
    assert (crop_and_resize(image, just, zero, (3, 4))[0, 0, 0] == 0).all()
    nan = crop_and_resize(image, just, zero, (3, 4), extrapolation_value=math.nan)[0, 0]
    assert nan[0].isnan().all() and nan[1:].isfinite().all()


@built
@pytest.mark.parametrize("coordinates", ["tf", "aligned"])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("size, pool", [((7, 7), 1), ((28, 12), 2), ((56, 56), 4), ((6, 3), 3)])
def test_reference(coordinates, method, size, pool):
    maps, boxes, index = make(k=9, c=5)
    if coordinates == "aligned":
        boxes = in_cells(boxes, 9, 13)
    options = (method, 2.0, coordinates, pool)
    want = reference(maps, boxes, index, size, *options)
    got = crop_and_resize(maps, boxes, index, size, *options)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("c, pool", [(14, 1), (28, 2), (56, 4), (21, 3)])
@pytest.mark.parametrize("flip", [False, True])
def test_aligned_is_roi_align(c, pool, flip):
    """A crop pooled by p is RoIAlign with sampling ratio p, also where boxes leave the map."""
    maps, boxes, index = make(k=12, c=4)
    boxes = in_cells(boxes, 9, 13)
    boxes = boxes[:, [2, 1, 0, 3]] if flip else boxes
    rois = torch.cat([index[:, None].to(boxes), boxes], 1)
    want = roi_align(maps, rois, c // pool, 1.0, sampling_ratio=pool, aligned=True)
    for op in (crop_and_resize, reference):
        got = op(maps, boxes, index, [c, c], coordinates="aligned", pool=pool)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_native_size_is_slicing():
    maps, _, _ = make(c=4)
    boxes = torch.tensor([[3.0, 2.0, 8.0, 6.0]], dtype=torch.float64)
    got = crop_and_resize(maps, boxes, torch.tensor([1]), (4, 5), coordinates="aligned")
    torch.testing.assert_close(got[0], maps[1, :, 2:6, 3:8], rtol=0, atol=0)


@pytest.mark.parametrize("coordinates", ["tf", "aligned"])
@pytest.mark.parametrize("pool", [1, 2])
def test_gradcheck(coordinates, pool):
    maps, boxes, index = make(k=4, n=2, c=2, h=5, w=6, seed=3)
    if coordinates == "aligned":
        boxes = in_cells(boxes, 5, 6)
    maps.requires_grad_()
    boxes.requires_grad_()

    def crop(maps, boxes):
        return crop_and_resize(maps, boxes, index, (4, 6), coordinates=coordinates, pool=pool)

    assert torch.autograd.gradcheck(crop, (maps, boxes), eps=1e-7)


@built
@pytest.mark.parametrize("coordinates", ["tf", "aligned"])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("size, pool", [((1, 1), 1), ((1, 5), 1), ((28, 14), 2), ((8, 8), 4)])
def test_gradients_of_reference(coordinates, method, size, pool):
    maps, boxes, index = make(k=8, c=5, seed=1)
    if coordinates == "aligned":
        boxes = in_cells(boxes, 9, 13)
    seed = torch.randn(8, 5, size[0] // pool, size[1] // pool, dtype=torch.float64)
    grads = []
    for op in (crop_and_resize, reference):
        leaves = [t.clone().requires_grad_() for t in (maps, boxes)]
        crops = op(*leaves, index, size, method, 1.5, coordinates, pool)
        grads.append(torch.autograd.grad(crops, leaves, seed, allow_unused=True))
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-10, atol=1e-10)
    if method == "nearest":
        assert (grads[0][1] == 0).all()
    else:
        torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-9, atol=1e-9)


def test_gradient_at_cell_centres():
    """TensorFlow's floor equals its ceil there: the slope to the box is 0, not one-sided."""
    maps, _, _ = make(h=5, w=5)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    crop_and_resize(maps, boxes, torch.tensor([0]), 5).sum().backward()
    assert (boxes.grad == 0).all()


@built
@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("coordinates", ["tf", "aligned"])
def test_opcheck(needs, coordinates):
    maps, boxes, index = make(dtype=torch.float32)
    maps.requires_grad_(needs[0])
    boxes.requires_grad_(needs[1])
    options = ([4, 6], "bilinear", 0.5, coordinates, 2, "raise")
    torch.library.opcheck(torch.ops.segroi.crop_and_resize, (maps, boxes, index, *options))
    grad = torch.randn(7, 3, 2, 3)
    maps, boxes = maps.detach(), boxes.detach()
    torch.library.opcheck(
        torch.ops.segroi.crop_and_resize_backward,
        (grad, maps, boxes, index, *options, [True, True]),
    )
    torch.library.opcheck(
        torch.ops.segroi.crop_and_resize_out, (maps, boxes, index, *options, grad.clone())
    )


@built
def test_compile_fullgraph():
    """One graph for any number of boxes, forward and backward."""
    counter = CompileCounterWithBackend("aot_eager")
    module = CropAndResize(8, pool=2)

    @torch.compile(fullgraph=True, backend=counter)
    def run(maps, rois):
        return module(maps, rois[:, 1:], rois[:, 0].long())

    for k in (5, 0, 1, 300):
        maps, boxes, index = make(k=k, dtype=torch.float32)
        maps.requires_grad_()
        rois = torch.cat([index[:, None].float(), boxes], 1)
        mark_unbacked(rois, 0)
        crops = run(maps, rois)
        assert torch.equal(crops, module(maps, boxes, index))
        crops.sum().backward()
    assert counter.frame_count == 1


@built
def test_export_with_any_number_of_boxes():
    class Crop(torch.nn.Module):
        def forward(self, maps, rois):
            return crop_and_resize(maps, rois[:, 1:], rois[:, 0].long(), 6, pool=2)

    def inputs(k):
        maps, boxes, index = make(k=k, dtype=torch.float32)
        return maps, torch.cat([index[:, None].float(), boxes], 1)

    program = torch.export.export(
        Crop(), inputs(5), dynamic_shapes=(None, {0: torch.export.Dim("k", min=0)})
    )
    for k in (0, 1, 5, 200):
        assert torch.equal(program.module()(*inputs(k)), Crop()(*inputs(k)))


@built
@pytest.mark.big
@pytest.mark.parametrize("channels_last", [False, True])
def test_map_of_more_than_2_31_elements(channels_last):
    """The crop's last channel and its pixels lie beyond 32-bit offsets; only they are touched."""
    side, channels = 16384, 9
    if channels_last:
        maps = torch.zeros(1, side, side, channels, dtype=torch.half).permute(0, 3, 1, 2)
    else:
        maps = torch.zeros(1, channels, side, side, dtype=torch.half)
    corner = torch.randn(1, channels, 8, 8).half()
    maps[:, :, -8:, -8:] = corner
    box = torch.tensor([[side - 8.0, side - 8.0, side, side]])
    got = crop_and_resize(maps, box, torch.tensor([0]), 8, coordinates="aligned")
    assert torch.equal(got, corner)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
@pytest.mark.parametrize("channels", [1, 3, 37, 64])
def test_dtypes_and_layouts(dtype, tolerance, channels_last, channels):
    maps, boxes, index = make(c=channels, dtype=dtype)
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    got = crop_and_resize(maps, boxes, index.int(), (6, 8), coordinates="aligned", pool=2)
    want = reference(maps.double(), boxes.double(), index, (6, 8), coordinates="aligned", pool=2)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    if channels_last and channels > 1 and _COMPILED:
        assert got.is_contiguous(memory_format=torch.channels_last)
    half_box = boxes if dtype == torch.float64 else boxes.half()
    if dtype != torch.float64:
        with pytest.raises(TypeError, match="crop_and_resize: boxes must be float32"):
            crop_and_resize(maps, half_box, index, 4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_windows_larger_than_a_cache(dtype, tolerance):
    """Also flipped, and with samples outside the map."""
    maps, boxes, index = make(c=900, h=30, w=28, dtype=dtype)
    boxes[0] = torch.tensor([-0.1, -0.2, 1.1, 1.2])
    boxes[1] = torch.tensor([1.1, 0.9, -0.1, 0.0])
    maps = maps.contiguous(memory_format=torch.channels_last)
    options = dict(pool=2, extrapolation_value=3.0)
    got = crop_and_resize(maps, boxes, index, (24, 28), **options)
    want = reference(maps.double(), boxes.double(), index, (24, 28), **options)
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[:, 1:-1, 2:, 1:-2],
        lambda t: t.transpose(2, 3),
        lambda t: t[:, :, ::2, ::3],
        lambda t: t[:, :1].expand(-1, 4, -1, -1),
        lambda t: t.permute(1, 0, 3, 2),
    ],
)
def test_strides_and_gradients(view):
    maps, boxes, index = make(n=5, c=6, dtype=torch.float32)
    maps.requires_grad_()
    strided, seed = view(maps), torch.randn(7, view(maps).shape[1], 3, 2)
    index = index % strided.shape[0]
    seed = seed.transpose(2, 3).contiguous().transpose(2, 3)
    got = crop_and_resize(strided, boxes, index, (6, 4), pool=2)
    want = reference(strided, boxes, index, (6, 4), pool=2)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    got, want = (torch.autograd.grad(crops, maps, seed)[0] for crops in (got, want))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@built
def test_autocast_keeps_dtypes():
    maps, boxes, index = make(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert crop_and_resize(maps.bfloat16(), boxes, index, 4).dtype == torch.bfloat16
        assert crop_and_resize(maps, boxes, index, 4).dtype == torch.float32


@pytest.mark.parametrize("k, n, c", [(0, 2, 3), (0, 0, 3), (4, 2, 0)])
def test_empty(k, n, c):
    maps = torch.randn(n, c, 5, 6, requires_grad=True)
    boxes = torch.rand(k, 4, requires_grad=True)
    crops = crop_and_resize(maps, boxes, torch.zeros(k, dtype=torch.long), (4, 6), pool=2)
    assert crops.shape == (k, c, 2, 3)
    crops.sum().backward()
    assert maps.grad.shape == maps.shape and (maps.grad == 0).all() and (boxes.grad == 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("slot", range(4))
def test_boxes_not_finite(value, slot):
    maps, boxes, index = make(dtype=torch.float32)
    boxes[3, slot] = value
    with pytest.raises(ValueError, match="crop_and_resize: boxes must be finite"):
        crop_and_resize(maps, boxes, index, 4)
    check_zeroed(maps, boxes, index)


@pytest.mark.parametrize("bad", [-1, 2, 10**6, -(2**31), 2**40])
def test_index_of_no_image(bad):
    maps, boxes, index = make(dtype=torch.float32)
    index[3] = bad
    with pytest.raises(ValueError, match=r"crop_and_resize: box_index must be in \[0, 2\)"):
        crop_and_resize(maps, boxes, index, 4)
    check_zeroed(maps, boxes, index)


def check_zeroed(maps, boxes, index):
    """With on_invalid="zero" box 3 is zeros without gradient, and the others are untouched."""
    others = [k for k in range(len(boxes)) if k != 3]
    maps, boxes = maps.requires_grad_(), boxes.requires_grad_()
    got = crop_and_resize(maps, boxes, index, 4, extrapolation_value=7.0, on_invalid="zero")
    want = crop_and_resize(maps, boxes[others], index[others], 4, extrapolation_value=7.0)
    assert (got[3] == 0).all() and torch.equal(got[others], want)
    grads = [torch.autograd.grad(crops.square().sum(), (maps, boxes)) for crops in (got, want)]
    torch.testing.assert_close(grads[0], grads[1])
    assert (grads[0][1][3] == 0).all()


def test_huge_boxes_are_defined():
    maps, _, _ = make(dtype=torch.float32)
    boxes = torch.tensor([[-3e38, -3e38, 3e38, 3e38], [0.0, 0.0, 1e30, 1e-40]])
    for coordinates in ("tf", "aligned"):
        crops = crop_and_resize(maps, boxes, torch.tensor([0, 1]), 4, coordinates=coordinates)
        want = reference(maps, boxes, torch.tensor([0, 1]), [4, 4], coordinates=coordinates)
        assert crops.isfinite().all()
        torch.testing.assert_close(crops, want)


def test_infinity_beside_the_crop_stays_there():
    maps = torch.ones(1, 2, 8, 8)
    maps[:, :, 4, :] = math.inf
    maps[:, :, :, 4] = math.nan
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    zero = torch.tensor([0])
    assert (crop_and_resize(maps, box, zero, 4, coordinates="aligned") == 1).all()
    box = torch.tensor([[0.0, 0.0, 3 / 7, 3 / 7]])
    assert (crop_and_resize(maps, box, zero, 4) == 1).all()
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    assert not crop_and_resize(maps, box, zero, 8, coordinates="aligned").isfinite().all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_out(channels_last):
    maps, boxes, index = make(dtype=torch.float32)
    want = crop_and_resize(maps, boxes, index, 6, pool=2)
    out = torch.full_like(want, math.nan)
    if channels_last:
        out = out.contiguous(memory_format=torch.channels_last)
    assert crop_and_resize(maps, boxes, index, 6, pool=2, out=out) is out
    torch.testing.assert_close(out, want)
    with pytest.raises(ValueError, match="crop_and_resize: out must be float32 Tensor"):
        crop_and_resize(maps, boxes, index, 6, out=out)
    with pytest.raises(ValueError, match="out must be None where a gradient"):
        crop_and_resize(maps.requires_grad_(), boxes, index, 6, pool=2, out=out)


@built
def test_double_backward_says_so():
    maps, boxes, index = make()
    maps.requires_grad_()
    (grad,) = torch.autograd.grad(
        crop_and_resize(maps, boxes, index, 4).square().sum(), maps, create_graph=True
    )
    with pytest.raises(RuntimeError, match="crop_and_resize: it can be differentiated once"):
        grad.sum().backward()


@built
def test_any_number_of_threads_gives_the_same_bits():
    maps, boxes, index = make(k=40, c=33, h=31, w=29, dtype=torch.float32)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaves = [t.clone().requires_grad_() for t in (maps, boxes)]
        crops = crop_and_resize(*leaves, index, 14, pool=2)
        results.append([crops, *torch.autograd.grad(crops.square().sum(), leaves)])
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize(
    "change, error, text",
    [
        (dict(features=torch.ones(3, 4, 5)), ValueError, "features must be Tensor"),
        (dict(features=torch.ones(1, 1, 2, 3, 4)), ValueError, "features must be Tensor"),
        (dict(features=torch.ones(1, 1, 0, 4)), ValueError, "features must be Tensor"),
        (dict(features=torch.ones(1, 1, 4, 4).int()), TypeError, "features must be float64"),
        (dict(features=torch.ones(1, 1, 4, 4).to_sparse()), TypeError, "features must be a dense"),
        (dict(features=[torch.ones(1, 1, 4, 4)]), TypeError, "features must be a dense Tensor"),
        (dict(boxes=torch.ones(2, 5)), ValueError, r"boxes must be Tensor\[K, 4\]"),
        (dict(boxes=torch.ones(4)), ValueError, r"boxes must be Tensor\[K, 4\]"),
        (dict(boxes=torch.ones(2, 4).double()), TypeError, "boxes must be float32"),
        (dict(box_index=torch.zeros(3).long()), ValueError, r"box_index must be Tensor\[2\]"),
        (dict(box_index=torch.zeros(2)), TypeError, "box_index must be an integer"),
        (dict(box_index=torch.zeros(2, device="meta").long()), ValueError, "box_index must be on"),
        (dict(crop_size=0), ValueError, "crop_size must be"),
        (dict(crop_size=(4, -1)), ValueError, "crop_size must be"),
        (dict(crop_size=4.0), TypeError, "crop_size must be"),
        (dict(crop_size=True), TypeError, "crop_size must be"),
        (dict(crop_size=(4, 4, 4)), TypeError, "crop_size must be"),
        (dict(crop_size=5, pool=2), ValueError, "crop_size must be multiples of pool=2"),
        (dict(pool=0), ValueError, "pool must be positive"),
        (dict(pool=2.0), TypeError, "pool must be an int"),
        (dict(method="bicubic"), ValueError, "method must be 'bilinear' or 'nearest'"),
        (dict(coordinates="pixels"), ValueError, "coordinates must be 'tf' or 'aligned'"),
        (dict(on_invalid="ignore"), ValueError, "on_invalid must be"),
        (dict(extrapolation_value="0"), TypeError, "extrapolation_value must be a float"),
    ],
)
def test_errors_name_operator_and_argument(change, error, text):
    arguments = dict(
        features=torch.ones(1, 1, 4, 4),
        boxes=torch.ones(2, 4),
        box_index=torch.zeros(2, dtype=torch.long),
        crop_size=4,
    )
    with pytest.raises(error, match=f"crop_and_resize: {text}.*, got "):
        crop_and_resize(**{**arguments, **change})
