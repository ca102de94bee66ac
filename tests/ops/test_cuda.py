"""The operators on a CUDA device: the CPU's values, one launch, no waiting, the same bits."""

import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from segroi.ops import (
    check_errors,
    crop_and_resize,
    encompass_crop,
    encompassing_boxes,
    multi_level_roi_align,
)

pytestmark = pytest.mark.cuda
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def make_maps(dtype=torch.float32, layout="nchw", channels=24, images=2, size=(96, 148)):
    generator = torch.Generator().manual_seed(0)
    maps = []
    for level in range(len(SCALES)):
        h, w = size[0] >> level, size[1] >> level
        m = torch.randn(images, channels, h, w, generator=generator).to(dtype)
        if layout == "nhwc":
            m = m.contiguous(memory_format=torch.channels_last)
        elif layout == "strided":
            m = m.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        maps.append(m)
    return maps


def make_rois(dtype=torch.float32, count=64, images=2, height=384, width=592):
    generator = torch.Generator().manual_seed(1)
    side = 2 ** torch.empty(count, 2).uniform_(1, 9, generator=generator)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    image = torch.randint(images, (count, 1), generator=generator)
    rois = torch.cat([image, centre - side / 2, centre + side / 2], 1)
    return rois.to(torch.float64 if dtype == torch.float64 else torch.float32)


def make_boxes(count=40, images=2):
    generator = torch.Generator().manual_seed(3)
    boxes = torch.rand(count, 4, generator=generator) * 1.6 - 0.3
    return boxes, torch.randint(images, (count,), generator=generator)


def align(maps, rois, size=7, **options):
    return multi_level_roi_align(maps, rois, size, SCALES, **options)


def with_gradients(function, tensors, seed=2):
    """Value and gradients of `function(*tensors)`; gradients weigh the value randomly."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format) for t in tensors]
    leaves = [t.requires_grad_(t.is_floating_point()) for t in leaves]
    value = function(*leaves)
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
    weights = torch.empty_like(value).copy_(weights.to(value.dtype))
    wanted = [t for t in leaves if t.requires_grad]
    return value.detach(), torch.autograd.grad(value, wanted, weights)


def assert_same_as_cpu(function, tensors, dtype):
    value, gradients = with_gradients(function, tensors)
    on_gpu, gpu_gradients = with_gradients(function, [t.cuda() for t in tensors])
    assert on_gpu.stride() == value.stride()
    for got, wanted in zip((on_gpu, *gpu_gradients), (value, *gradients)):
        scale = max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(
            got.cpu(), wanted, rtol=TOLERANCE[dtype], atol=scale * TOLERANCE[dtype]
        )


def kernels_of(function):
    """Names of the kernels that `function` launches."""
    function()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        function()
        torch.cuda.synchronize()
    events = [e for e in recorded.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return [e.name for e in events if not e.name.startswith("Context")]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "strided"])
@pytest.mark.parametrize("reduce,ratio", [("select", 0), ("stack", 2), ("sum", 0), ("concat", 1)])
def test_align_equals_cpu(dtype, layout, reduce, ratio):
    def run(rois, *maps):
        return align(list(maps), rois, (7, 5), sampling_ratio=ratio, reduce=reduce)

    assert_same_as_cpu(run, [make_rois(dtype), *make_maps(dtype, layout)], dtype)


@pytest.mark.parametrize("channels", [1, 3, 130, 256])
@pytest.mark.parametrize("size", [1, (14, 14), (40, 33)])
def test_any_channels_and_size(channels, size):
    def run(rois, *maps):
        return align(list(maps), rois, size)

    for layout in ("nchw", "nhwc"):
        maps = make_maps(layout=layout, channels=channels, size=(48, 64))
        assert_same_as_cpu(run, [make_rois(count=12), *maps], torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "strided"])
@pytest.mark.parametrize(
    "coordinates,pool,method,fill",
    [("tf", 1, "bilinear", 0.0), ("tf", 2, "nearest", 3.0), ("aligned", 4, "bilinear", -1.0)],
)
def test_crop_equals_cpu(dtype, layout, coordinates, pool, method, fill):
    boxes, index = make_boxes()
    if coordinates == "aligned":
        boxes = boxes * 48
    boxes = boxes.to(torch.float64 if dtype == torch.float64 else torch.float32)

    def run(features, boxes, index):
        return crop_and_resize(features, boxes, index, 28, method, fill, coordinates, pool)

    features = make_maps(dtype, layout, size=(48, 52))[0]
    assert_same_as_cpu(run, [features, boxes, index], dtype)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_encompassing_crops_are_the_cpus(layout):
    features = make_maps(layout=layout, size=(20, 20))[0]
    boxes = make_rois(count=10, height=320, width=320)
    cells = encompassing_boxes(boxes[:, 1:], (320, 320), 20)
    assert torch.equal(encompassing_boxes(boxes[:, 1:].cuda(), (320, 320), 20).cpu(), cells)
    index, shapes = boxes[:, 0].long(), [(20, 20)]
    wanted = encompass_crop(features, cells, index, shapes)[0]
    got = encompass_crop(features.cuda(), cells.cuda(), index.cuda(), shapes)[0]
    assert torch.equal(got.cpu(), wanted)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("reduce", ["select", "sum"])
def test_one_launch_forward_and_two_backward(layout, reduce):
    maps = [m.cuda().requires_grad_() for m in make_maps(layout=layout)]
    rois = make_rois().cuda()
    assert len(kernels_of(lambda: align(maps, rois, reduce=reduce))) == 1
    value = align(maps, rois, reduce=reduce)
    grad = torch.randn_like(value)
    names = kernels_of(lambda: torch.autograd.grad(value, maps, grad, retain_graph=True))
    assert len(names) == 2, names


def test_no_synchronisation():
    maps = [m.cuda().requires_grad_() for m in make_maps()]
    rois = make_rois().cuda().requires_grad_()
    features = maps[0]
    boxes, index = (t.cuda() for t in make_boxes())
    torch.cuda.set_sync_debug_mode("error")
    try:
        for reduce in ("select", "stack", "sum", "concat"):
            value = align(maps, rois, reduce=reduce)
            torch.autograd.grad(value, [*maps, rois], torch.ones_like(value))
        crops = crop_and_resize(features, boxes, index, 14)
        torch.autograd.grad(crops, features, torch.ones_like(crops))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    check_errors()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_same_bits_every_time(layout):
    maps = [m.cuda() for m in make_maps(layout=layout)]
    rois = make_rois(count=1500).cuda()

    def run():
        return with_gradients(lambda r, *m: align(list(m), r, 14), [rois, *maps])

    value, gradients = run()
    for _ in range(5):
        again, gradients_again = run()
        assert torch.equal(value, again)
        assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_again))


def test_graph_capture():
    maps = [m.cuda().requires_grad_() for m in make_maps()]
    rois = make_rois().cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.autograd.grad(align(maps, rois).sum(), maps)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = align(maps, rois)
        gradients = torch.autograd.grad(value.square().sum(), maps)
    rois.copy_(rois.flip(0).clone())
    graph.replay()
    eager = align(maps, rois)
    assert torch.equal(value, eager)
    wanted = torch.autograd.grad(eager.square().sum(), maps)
    assert all(torch.equal(a, b) for a, b in zip(gradients, wanted))


def test_runs_on_the_current_stream():
    maps, rois = [m.cuda() for m in make_maps()], make_rois().cuda()
    wanted = align(maps, rois)
    stream = torch.cuda.Stream()
    late = [torch.zeros_like(m) for m in maps]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for target, source in zip(late, maps):
            target.copy_(source)
        value = align(late, rois)
    stream.synchronize()
    assert torch.equal(value, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_runs_on_the_tensors_device():
    maps, rois = [m.to("cuda:1") for m in make_maps()], make_rois().to("cuda:1")
    with torch.cuda.device(0):
        value = align(maps, rois)
    assert value.device.index == 1
    torch.testing.assert_close(value.cpu(), align(make_maps(), make_rois()))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_out_and_views(layout):
    maps, rois = [m.cuda() for m in make_maps(layout=layout)], make_rois().cuda()
    wanted = align(maps, rois)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        out = torch.full_like(wanted, math.nan, memory_format=memory_format)
        assert align(maps, rois, out=out) is out
        torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    wide = torch.randn(rois.shape[0], 9, device="cuda")
    wide[:, 2:7] = rois
    views = [torch.cat([m, m], 1)[:, : m.shape[1]] for m in maps]
    torch.testing.assert_close(align(views, wide[:, 2:7]), wanted, rtol=1e-5, atol=1e-5)


BAD_ROIS = [
    (0, 2.0), (0, -1.0), (0, 0.5), (0, math.nan), (0, 1e30), (1, math.nan), (4, math.inf),
    (3, -math.inf),
]  # fmt: skip


@pytest.mark.parametrize("column,value", BAD_ROIS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_wrong_roi_gives_zero_and_is_reported(column, value, layout):
    check_errors()
    maps = [m.cuda().requires_grad_() for m in make_maps(layout=layout)]
    rois = make_rois(count=5)
    rois[3, column] = value
    rois = rois.cuda().requires_grad_()
    result = align(maps, rois)
    gradients = torch.autograd.grad(result.sum(), [*maps, rois])
    assert not result[3].any() and all(g.isfinite().all() for g in gradients)
    assert not gradients[-1][3].any()
    with pytest.raises(ValueError, match=r"multi_level_roi_align: rois\[3\]"):
        check_errors()
    check_errors()  # said once
    align(maps, rois, on_invalid="zero")
    check_errors()


def test_the_next_call_reports():
    maps, rois = [m.cuda() for m in make_maps()], make_rois()
    rois[0, 0] = 7
    align(maps, rois.cuda())
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match=r"rois\[0\].*earlier"):
        align(maps, make_rois().cuda())
    align(maps, make_rois().cuda())
    check_errors()


@pytest.mark.parametrize("levels", [[0, 4, -1, 3], [0, 2**31, 1, 3]])
def test_wrong_levels_give_zero(levels):
    maps, rois = [m.cuda() for m in make_maps()], make_rois(count=4).cuda()
    result = align(maps, rois, levels=torch.tensor(levels, device="cuda"), on_invalid="zero")
    for k, level in enumerate(levels):
        assert result[k].any() == (0 <= level < 4)


def test_empty_inputs():
    maps = [m.cuda().requires_grad_() for m in make_maps()]
    rois = make_rois()[:0].cuda()
    for reduce in ("select", "stack", "sum", "concat"):
        value = align(maps, rois, reduce=reduce)
        assert value.shape[0] == 0
        assert not any(g.any() for g in torch.autograd.grad(value.sum(), maps))
    no_images = [m[:0] for m in maps]
    assert not align(no_images, make_rois(count=3).cuda(), on_invalid="zero").any()
    no_channels = [m[:, :0] for m in maps]
    assert align(no_channels, make_rois(count=3).cuda()).shape == (3, 0, 7, 7)


def test_a_box_as_large_as_a_float_ends():
    maps, rois = [m.cuda() for m in make_maps()], make_rois(count=2)
    rois[0, 1:] = torch.tensor([-1e9, -1e9, 1e9, 1e9])
    rois[1, 1:] = torch.tensor([-3e38, -3e38, 3e38, 3e38])
    for reduce in ("select", "sum"):
        assert align(maps, rois.cuda(), reduce=reduce).isfinite().all()


def test_compiles_into_one_graph():
    maps, rois = [m.cuda().requires_grad_() for m in make_maps()], make_rois().cuda()
    compiled = torch.compile(align, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(maps, rois), align(maps, rois))
    compiled(maps, rois).sum().backward()


@pytest.mark.big
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_more_than_2_to_the_31_elements(layout):
    """A map of 2.4e9 elements and a result of 2.5e9, in half precision."""
    maps = torch.zeros(2, 1024, 1024, 1152, dtype=torch.float16, device="cuda")
    maps = maps.contiguous(memory_format=layout)
    maps[1, 1023] = 5
    rois = torch.tensor([[1.0, 8.0, 8.0, 1000.0, 1000.0]], device="cuda").expand(780, 5)
    result = multi_level_roi_align([maps], rois, 56, (1.0,), sampling_ratio=1)
    assert result.numel() > 2**31
    assert (result[779, 1023] == 5).all() and not result[779, 1022].any()
