"""The CUDA kernels' own code, run on the CPU by cuda_emulation.h, against torchvision."""

import math
import shutil

import pytest
import torch
from emulated_kernels import (
    CHANNELS_LAST,
    STRIDED,
    TOLERANCE,
    VECTOR,
    align_args,
    backward_boxes,
    backward_maps,
    build,
    close,
    crop_args,
    forward,
)
from torchvision.ops import roi_align

from segroi.ops.reference.crop_and_resize import crop_and_resize

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return build(tmp_path_factory.mktemp("emulation"))


def make_pyramid(dtype, layout, channels=8, sizes=((24, 37), (12, 19), (6, 10)), images=2):
    generator = torch.Generator().manual_seed(0)
    maps = []
    for h, w in sizes:
        m = torch.randn(images, channels, h, w, generator=generator).to(dtype)
        if layout == "nhwc":
            m = m.contiguous(memory_format=torch.channels_last)
        elif layout == "odd":
            m = m.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        maps.append(m)
    return maps, [1 / 4, 1 / 8, 1 / 16]


def make_rois(dtype, count=9, images=2, width=148, height=96):
    generator = torch.Generator().manual_seed(1)
    side = 2 ** torch.empty(count, 2).uniform_(1, 7.4, generator=generator)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    image = torch.randint(images, (count, 1), generator=generator)
    rois = torch.cat([image, centre - side / 2, centre + side / 2], 1)
    rois[0, 1:] = torch.tensor([-500.0, -400.0, 700.0, 600.0])  # far larger than the map
    rois[1, 1:] = torch.tensor([300.0, 300.0, 320.0, 330.0])  # beside it
    rois[2, 3:] = rois[2, 1:3] + 0.01
    rois[3, 1:] = torch.tensor([40.0, 40.0, 40.4, 40.3])  # many bins in one cell
    return rois.to(
        torch.promote_types(torch.float32, dtype) if dtype.itemsize > 2 else torch.float32
    )


def expected_align(maps, rois, size, scales, sampling_ratio, aligned, reduce, levels=None):
    """[K, slots, C, h, w] by torchvision, level by level."""
    wide = rois.dtype
    every = torch.stack(
        [
            roi_align(m.to(wide), rois, size, s, sampling_ratio, aligned)
            for m, s in zip(maps, scales)
        ],
        1,
    )
    if reduce == "sum":
        return every.sum(1, keepdim=True)
    if reduce == "stack":
        return every
    if levels is None:
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).double().sqrt()
        levels = (4 + (side / 224 + 1e-12).log2()).floor().clamp(2, 1 + len(maps)).long() - 2
    return every[torch.arange(len(rois)), levels.long()][:, None]


ALIGN_CASES = [
    # dtype, layout, channels, size, sampling ratio, aligned, reduce, kernel
    (torch.float32, "nhwc", 8, (7, 7), 0, True, "select", VECTOR),
    (torch.float32, "nhwc", 140, (3, 5), 2, True, "select", VECTOR),
    (torch.float32, "nhwc", 5, (7, 7), 2, False, "stack", CHANNELS_LAST),
    (torch.float32, "nchw", 5, (7, 7), 0, True, "sum", STRIDED),
    (torch.float32, "nchw", 37, (3, 2), 2, False, "select", STRIDED),
    (torch.float32, "nchw", 1, (36, 40), 1, True, "select", STRIDED),
    (torch.float32, "odd", 3, (4, 4), 0, True, "stack", STRIDED),
    (torch.float64, "nchw", 3, (7, 7), 0, True, "select", STRIDED),
    (torch.float64, "nhwc", 4, (5, 7), 0, False, "sum", VECTOR),
    (torch.float16, "nhwc", 16, (7, 7), 2, True, "sum", VECTOR),
    (torch.bfloat16, "nhwc", 8, (7, 7), 0, True, "select", VECTOR),
    (torch.bfloat16, "nchw", 6, (7, 7), 2, True, "stack", STRIDED),
]


@pytest.mark.parametrize("dtype,layout,channels,size,ratio,aligned,reduce,kernel", ALIGN_CASES)
def test_align(kernels, dtype, layout, channels, size, ratio, aligned, reduce, kernel):
    maps, scales = make_pyramid(dtype, layout, channels)
    rois = make_rois(dtype)
    options = (rois, size, scales, ratio, aligned, reduce)
    leaves = [m.to(rois.dtype).requires_grad_() for m in maps]
    wanted = expected_align(leaves, *options)
    crops = wanted.detach().to(dtype)
    if layout == "nhwc":
        crops = crops.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    args = align_args(kernels, *options)
    result, used = forward(kernels, args, maps, scales, crops)
    assert used == kernel
    close(result, wanted, dtype, len(maps))

    grad = torch.randn(crops.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    grad = torch.empty_like(crops).copy_(grad)
    wanted.backward(grad.to(wanted.dtype))
    results, _ = backward_maps(kernels, args, maps, scales, grad)
    for got, leaf in zip(results, leaves):
        close(got, leaf.grad, dtype, max(1.0, float(leaf.grad.abs().max())))


def make_boxes(coordinates, height, width, count=7):
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(count, 4, generator=generator) * 1.6 - 0.3  # some leave the map, some flip
    corners[0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    corners[1] = torch.tensor([2.0, 2.0, 3.0, 3.0])
    if coordinates == "aligned":
        corners = corners * torch.tensor([width, height, width, height])
    return corners, torch.randint(2, (count,), generator=generator)


@pytest.mark.parametrize(
    "dtype,layout,size,coordinates,pool,method,fill,index_type",
    [
        (torch.float32, "nchw", (14, 14), "tf", 1, "bilinear", 0.0, torch.int64),
        (torch.float32, "nhwc", (14, 12), "tf", 2, "bilinear", 2.5, torch.int32),
        (torch.float32, "nhwc", (1, 5), "tf", 1, "nearest", math.nan, torch.uint8),
        (torch.float64, "nchw", (12, 20), "aligned", 4, "bilinear", -1.0, torch.int16),
        (torch.float16, "nchw", (6, 6), "aligned", 1, "nearest", 0.0, torch.int8),
    ],
)
def test_crop(kernels, dtype, layout, size, coordinates, pool, method, fill, index_type):
    (map_,), _ = make_pyramid(dtype, layout, 4, ((13, 17),))
    boxes, index = make_boxes(coordinates, 13, 17)
    boxes, index = boxes.to(torch.promote_types(dtype, torch.float32)), index.to(index_type)
    leaf = map_.to(boxes.dtype).requires_grad_()
    corners = boxes.clone().requires_grad_()
    wanted = crop_and_resize(leaf, corners, index, size, method, fill, coordinates, pool)[:, None]
    args = crop_args(boxes, index, size, coordinates, pool, method, fill)
    result, _ = forward(kernels, args, [map_], [1.0], wanted.detach().to(dtype))
    torch.testing.assert_close(
        result.to(wanted.dtype), wanted.detach(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype],
        equal_nan=True,
    )  # fmt: skip

    grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    wanted.backward(grad.to(wanted.dtype))
    (by_map,), _ = backward_maps(kernels, args, [map_], [1.0], grad)
    close(by_map, leaf.grad, dtype, 10)
    if method == "bilinear":
        by_boxes = backward_boxes(kernels, args, [map_], [1.0], grad, boxes)
        close(by_boxes, corners.grad, dtype, float(corners.grad.abs().max()))


@pytest.mark.parametrize("layout,reduce", [("nchw", "sum"), ("nhwc", "stack")])
def test_align_box_gradient(kernels, layout, reduce):
    """RoIAlign of sampling ratio 2 is the aligned crop of twice the size, pooled by 2."""
    maps, scales = make_pyramid(torch.float64, layout, 3)
    rois = make_rois(torch.float64)
    leaf = rois.clone().requires_grad_()
    wanted = torch.stack(
        [
            crop_and_resize(m, leaf[:, 1:] * s, rois[:, 0].long(), (10, 6), "bilinear", 0.0,
                            "aligned", 2)
            for m, s in zip(maps, scales)
        ],
        1,
    )  # fmt: skip
    if reduce == "sum":
        wanted = wanted.sum(1, keepdim=True)
    grad = torch.randn(wanted.shape, dtype=torch.float64)
    wanted.backward(grad)
    args = align_args(kernels, rois, (5, 3), scales, 2, True, reduce)
    got = backward_boxes(kernels, args, maps, scales, grad, rois)
    close(got, leaf.grad, torch.float64, float(leaf.grad.abs().max()))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_wrong_rois_give_zero_and_leave_a_note(kernels, layout):
    maps, scales = make_pyramid(torch.float32, layout)
    rois = make_rois(torch.float32)
    good = rois.clone()
    for k, column, value in [
        (0, 0, 2.0), (1, 0, -1.0), (2, 0, 0.5), (3, 0, math.nan), (4, 1, math.nan),
        (5, 4, math.inf), (6, 2, -math.inf),
    ]:  # fmt: skip
        rois[k, column] = value
    levels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 3])  # the last one does not exist
    flag = torch.zeros(1, dtype=torch.int64)
    args = align_args(kernels, rois, (3, 3), scales, 0, True, "select", levels)
    args.error_flag = flag.data_ptr()
    crops = torch.empty(9, 1, 8, 3, 3)
    result, _ = forward(kernels, args, maps, scales, crops)
    wanted = expected_align(maps, good[7:8], (3, 3), scales, 0, True, "select", levels[7:8])
    close(result[7:8], wanted, torch.float32)
    assert not result[[0, 1, 2, 3, 4, 5, 6, 8]].any()
    assert flag.item() >> 48 == 1 and flag.item() % 2**48 in (0, 1, 2, 3, 4, 5, 6, 8)

    flag.zero_()
    results, _ = backward_maps(kernels, args, maps, scales, torch.ones_like(crops))
    assert flag.item() >> 48 == 1 and flag.item() % 2**48 in (0, 1, 2, 3, 4, 5, 6, 8)
    assert results[1].sum().item() == pytest.approx(9 * 8, rel=1e-4)
    assert not results[0].any() and not results[2].any()
    by_rois = backward_boxes(kernels, args, maps, scales, torch.ones_like(crops), rois)
    assert not by_rois[[0, 1, 2, 3, 4, 5, 6, 8]].any() and by_rois[7].any()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_bins_of_thousands_of_pixels(kernels, layout):
    """Tap lists longer than shared memory: values come straight from the samples."""
    (map_,), _ = make_pyramid(torch.float32, layout, 2, ((4, 9000),), images=1)
    rois = torch.tensor([[0, 0.0, 0.0, 9000.0, 4.0], [0, -1e9, -10.0, 2e9, 20.0]])
    args = align_args(kernels, rois, (2, 2), [1.0], 0, True, "stack")
    wanted = expected_align([map_], rois[:1], (2, 2), [1.0], 0, True, "stack")
    result, _ = forward(kernels, args, [map_], [1.0], torch.empty(2, 1, 2, 2, 2))
    close(result[:1], wanted, torch.float32)
    assert result.isfinite().all()
    by_rois = backward_boxes(kernels, args, [map_], [1.0], torch.ones(2, 1, 2, 2, 2), rois)
    assert by_rois.isfinite().all()


@pytest.mark.parametrize("width", [900, 2500])
def test_windows_wider_than_a_warps_memory(kernels, width):
    """Then fewer rows, fewer channels and at last fewer warps share the memory of the sums."""
    (map_,), _ = make_pyramid(torch.float32, "nchw", 9, ((6, width),), images=1)
    rois = torch.tensor([[0, 1.0, 1.0, width - 1.0, 5.0], [0, 0.0, 0.0, 40.0, 6.0]])
    args = align_args(kernels, rois, (3, 5), [1.0], 0, True, "stack")
    wanted = expected_align([map_], rois, (3, 5), [1.0], 0, True, "stack")
    result, _ = forward(kernels, args, [map_], [1.0], torch.empty(wanted.shape))
    close(result, wanted, torch.float32)


def test_more_rois_than_threads(kernels):
    maps, scales = make_pyramid(torch.float32, "nchw", 2)
    rois = make_rois(torch.float32, 1200)
    leaves = [m.clone().requires_grad_() for m in maps]
    wanted = expected_align(leaves, rois, (2, 2), scales, 0, True, "select")
    grad = torch.randn(wanted.shape)
    wanted.backward(grad)
    args = align_args(kernels, rois, (2, 2), scales, 0, True, "select")
    results, _ = backward_maps(kernels, args, maps, scales, grad)
    for got, leaf in zip(results, leaves):
        close(got, leaf.grad, torch.float32, float(leaf.grad.abs().max()))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_infinity_stays_where_it_is(kernels, layout):
    """A neighbour of weight 0 has no say, neither forward nor backward."""
    (map_,), _ = make_pyramid(torch.float32, layout, 4, ((8, 8),), images=1)
    rois = torch.tensor([[0, 2.0, 2.0, 4.0, 4.0]])  # samples at the centres of cells 2 and 3
    args = align_args(kernels, rois, (2, 2), [1.0], 1, True, "stack")
    map_[:, :, 4:] = math.inf
    map_[:, :, :, 4:] = math.nan
    result, _ = forward(kernels, args, [map_], [1.0], torch.empty(1, 1, 4, 2, 2))
    assert torch.equal(result[0, 0], map_[0, :, 2:4, 2:4])
    grad = torch.zeros(1, 1, 4, 2, 2)
    grad[..., 0, 0] = math.inf
    (by_map,), _ = backward_maps(kernels, args, [map_], [1.0], grad)
    assert by_map[0, :, 2, 2].isinf().all() and by_map.isinf().sum() == 4
    assert not by_map.isnan().any()
