from __future__ import annotations

import pytest
import torch
from torch._dynamo.decorators import mark_unbacked
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.ops import roi_align

from segroi.ops import MultiLevelRoIAlign, multi_level_roi_align
from segroi.ops.multi_level_roi_align import _COMPILED, REDUCTIONS
from segroi.ops.reference.multi_level_roi_align import multi_level_roi_align as reference
from segroi.utils.testing import SCALES, random_pyramid, random_rois

built = pytest.mark.skipif(not _COMPILED, reason="the extension is not built")
IMAGE = (96, 160)
LAYOUTS = {
    "nchw": lambda t: t.contiguous(),
    "nhwc": lambda t: t.contiguous(memory_format=torch.channels_last),
    "sliced": lambda t: torch.cat([t, t], 3)[:, :, :, : t.shape[3]],
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "every second": lambda t: t.repeat_interleave(2, 3)[..., ::2],
}


def small(k=9, channels=5, dtype=torch.float64, seed=0, images=2, **kwargs):
    rois_dtype = dtype if dtype == torch.float64 else torch.float32
    rois = random_rois(k, IMAGE, images, (4, 150), clip=False, dtype=rois_dtype, seed=seed)
    return random_pyramid(IMAGE, channels, images, dtype=dtype, seed=seed, **kwargs), rois


@pytest.mark.parametrize("op", [multi_level_roi_align, reference])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
def test_every_level_is_torchvisions(op, sampling_ratio, aligned):
    maps, rois = small(k=20)
    got = op(maps, rois, (5, 7), SCALES, sampling_ratio, aligned, "stack")
    for level, (feature, scale) in enumerate(zip(maps, SCALES)):
        want = roi_align(feature, rois, (5, 7), scale, sampling_ratio, aligned)
        torch.testing.assert_close(got[:, level], want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (3, 28), (40, 2)])
def test_equals_reference(size, reduce, layout):
    maps, rois = small()
    maps = [LAYOUTS[layout](m) for m in maps]
    got = multi_level_roi_align(maps, rois, size, SCALES, 0, reduce=reduce)
    want = reference(maps, rois, size, SCALES, 0, reduce=reduce)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 64, 100, 256, 300])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_any_number_of_channels(channels, layout):
    maps, rois = small(3, channels, torch.float32, images=1)
    maps = [LAYOUTS[layout](m).requires_grad_() for m in maps]
    got = multi_level_roi_align(maps, rois, 7, SCALES, 2, reduce="sum")
    want = reference(maps, rois, (7, 7), SCALES, 2, reduce="sum")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(got)
    grads = [torch.autograd.grad((o * weight).sum(), maps) for o in (got, want)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
)
def test_windows_larger_than_a_cache(dtype, tolerance, reduce):
    """Channels last on a CPU: RoIs with such windows read a map together, tile by tile."""
    maps, rois = small(12, 700, dtype)
    rois[::3, 1:] = torch.tensor([-9.0, -9.0, 165.0, 99.0], dtype=rois.dtype)
    rois[1::6, 1:] = torch.tensor([3.0, 5.0, 150.0, 90.0], dtype=rois.dtype)
    maps = [LAYOUTS["nhwc"](m) for m in maps]
    wide = [m.double() for m in maps]
    want = reference(wide, rois.double(), (7, 5), SCALES, 0, reduce=reduce)
    results = [torch.full(want.shape, torch.nan, dtype=dtype)]  # not channels last
    multi_level_roi_align(maps, rois, (7, 5), SCALES, reduce=reduce, out=results[0])
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(multi_level_roi_align(maps, rois, (7, 5), SCALES, reduce=reduce))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[0].double(), want, rtol=tolerance, atol=tolerance)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 33), (17, 9)])
def test_maps_of_any_size(size):
    """Also narrower than a SIMD vector, and a single pixel."""
    maps = random_pyramid(size, 6, 2, (1.0,), torch.float32)
    rois = random_rois(12, size, 2, (0.5, 40), clip=False)
    for layout in ("nchw", "nhwc"):
        feature = LAYOUTS[layout](maps[0]).requires_grad_()
        got = multi_level_roi_align([feature], rois, (7, 5), (1.0,))
        want = roi_align(feature, rois, (7, 5), 1.0, 0, True)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        weight = torch.randn_like(want)
        grads = [torch.autograd.grad((o * weight).sum(), feature)[0] for o in (got, want)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_level_rule():
    """Sides of 112 and 224 px open a level; no area and all areas have one."""
    maps = [torch.full((1, 1, 64 // 2**i, 64 // 2**i), float(i)) for i in range(4)]
    sides = torch.tensor([0.0, 1, 111, 112, 223, 224, 447, 448, 5000])
    rois = torch.stack([torch.zeros(9), *[torch.zeros(9)] * 2, sides, sides], 1)
    got = multi_level_roi_align(maps, rois, 1, SCALES, 1, canonical_level=4)[:, 0, 0, 0]
    assert got.tolist()[:8] == [0, 0, 0, 1, 1, 2, 2, 3]
    given = torch.tensor([3, 2, 1, 0, 3, 2, 1, 0, 0])
    got = multi_level_roi_align(maps, rois * 0, 1, SCALES, 1, levels=given)[:, 0, 0, 0]
    assert torch.equal(got, given.float())


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_gradcheck(reduce, layout):
    maps = random_pyramid((32, 40), 2, 2, (1 / 4, 1 / 8), torch.float64)
    maps = [LAYOUTS[layout](m).requires_grad_() for m in maps]
    rois = random_rois(3, (32, 40), 2, (6, 40), clip=False, dtype=torch.float64, seed=3)

    def pool(a, b, boxes):
        rois_now = torch.cat([rois[:, :1], boxes], 1)
        return multi_level_roi_align([a, b], rois_now, (2, 3), (1 / 4, 1 / 8), 2, reduce=reduce)

    assert torch.autograd.gradcheck(pool, (*maps, rois[:, 1:].clone().requires_grad_()))


def test_gradients_equal_references():
    maps, rois = small(30, 4)
    rois.requires_grad_()
    maps = [m.requires_grad_() for m in maps]
    for aligned in (True, False):
        for reduce in REDUCTIONS:
            grads = []
            for op in (multi_level_roi_align, reference):
                out = op(maps, rois, (3, 7), SCALES, 0, aligned, reduce)
                grads.append(torch.autograd.grad(out.square().sum(), (*maps, rois)))
            torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


@built
def test_opcheck():
    maps, rois = small(4, 3)
    maps = [m.requires_grad_() for m in maps]
    levels = torch.tensor([0, 3, 1, 2])
    tests = (
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_static",
    )
    for reduce, given in (("select", None), ("select", levels), ("stack", None)):
        options = ([7, 7], list(SCALES), 2, True, reduce, 2, 224.0, 4, "raise")
        torch.library.opcheck(
            torch.ops.segroi.multi_level_roi_align.default,
            (maps, rois.detach().requires_grad_(), given, *options),
            test_utils=tests,
        )


@built
def test_compiles_into_one_graph():
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter)
    def pool(maps, rois):
        return multi_level_roi_align(maps, rois, 7, SCALES, 2, reduce="sum") * 2

    maps, _ = small(1, 4, torch.float32)
    maps = [m.requires_grad_() for m in maps]
    for count in (3, 0, 1, 2, 50, 2000):
        rois = random_rois(count, IMAGE, 2, (4, 150))
        mark_unbacked(rois, 0)
        got = pool(maps, rois)
        want = multi_level_roi_align(maps, rois, 7, SCALES, 2, reduce="sum") * 2
        torch.testing.assert_close(got, want)
        got.sum().backward()
    assert counter.frame_count == 1


@built
def test_exports_with_any_number_of_rois():
    maps, rois = small(5, 4, torch.float32)
    module = MultiLevelRoIAlign(7, SCALES, 2)
    rois_dim = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        module, (maps, rois), dynamic_shapes=([None] * 4, rois_dim), strict=False
    )
    for count in (0, 1, 2, 77):
        rois = random_rois(count, IMAGE, 2, (4, 150))
        torch.testing.assert_close(program.module()(maps, rois), module(maps, rois))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float32, 2e-5)]
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_rounds_once(dtype, tolerance, layout):
    """Half maps are accumulated in float32: the result is the float64 one, rounded."""
    maps, rois = small(20, 40, dtype)
    maps = [LAYOUTS[layout](m).requires_grad_() for m in maps]
    got = multi_level_roi_align(maps, rois, 7, SCALES)
    want = reference([m.double() for m in maps], rois.double(), (7, 7), SCALES)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    got.sum().backward()
    assert all(m.grad.dtype == dtype and m.grad.isfinite().all() for m in maps)


def test_boxes_are_never_half():
    feature = torch.arange(4000.0).expand(1, 1, 2, 4000).to(torch.float16)
    rois = torch.tensor([[0.0, 3001, 0, 3005, 2]])
    got = multi_level_roi_align([feature], rois, 1, (1.0,))
    assert got.item() == pytest.approx(3002.5, abs=1)
    with pytest.raises(TypeError, match="rois must be float32.*got float16"):
        multi_level_roi_align([feature], rois.half(), 1, (1.0,))


def test_autocast_keeps_types():
    maps, rois = small(4, 8, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert multi_level_roi_align(maps, rois, 7, SCALES).dtype == torch.bfloat16


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_layout_is_kept(reduce):
    maps, rois = small(4, 8, torch.float32, memory_format=torch.channels_last)
    out = multi_level_roi_align(maps, rois, 7, SCALES, reduce=reduce)
    images = out.flatten(0, 1) if reduce == "stack" else out
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nothing_to_pool(reduce):
    maps, rois = small(0, 3)
    maps = [m.requires_grad_() for m in maps]
    out = multi_level_roi_align(maps, rois, 7, SCALES, reduce=reduce)
    shapes = {"stack": (0, 4, 3, 7, 7), "concat": (0, 12, 7, 7)}
    assert out.shape == shapes.get(reduce, (0, 3, 7, 7))
    out.sum().backward()
    assert all(torch.equal(m.grad, torch.zeros_like(m)) for m in maps)


def test_levels_without_rois_have_zero_gradients():
    maps, _ = small(0, 3)
    maps = [m.requires_grad_() for m in maps]
    rois = torch.tensor([[0.0, 0, 0, 10, 10]], dtype=torch.float64)
    multi_level_roi_align(maps, rois, 7, SCALES).sum().backward()
    assert maps[0].grad.abs().sum() > 0
    assert all(not m.grad.any() for m in maps[1:])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_that_served_before(layout):
    """Large results and gradients come in blocks that others left; nothing of these must show."""
    maps = [LAYOUTS[layout](torch.randn(1, 8, 1100, 1000))]  # 35 MB
    rois = torch.tensor([[0.0, 10, 10, 200, 300], [0, 500, 600, 900, 1000]])
    wide = rois.repeat(12, 1)

    def run(rois, size):
        leaf = maps[0].detach().requires_grad_()
        out = multi_level_roi_align([leaf], rois, size, (1.0,), 2)
        return out.detach().sum(), torch.autograd.grad(out.square().sum(), leaf)[0]

    first, gradient = run(rois, 7)
    kept = gradient.clone()
    del gradient
    run(wide, 220)  # leaves blocks full of other numbers: 37 MB of crops, 35 MB of gradient
    again, gradient = run(rois, 7)
    assert torch.equal(first, again) and torch.equal(kept, gradient)
    gradient.resize_(1, 8, 1200, 1100)  # as any other tensor's storage


def test_results_may_be_written_to_in_place():
    maps = [torch.rand(1, 4, 20, 20).contiguous(memory_format=torch.channels_last)]
    leaf = maps[0].requires_grad_()
    rois = torch.tensor([[0.0, 2, 2, 18, 18]])
    for reduce in ("select", "stack"):
        multi_level_roi_align([leaf], rois, 3, (1.0,), 2, reduce=reduce).mul_(2).sum().backward()
    assert leaf.grad.sum() == pytest.approx(2 * 2 * 4 * 9, rel=1e-4)


@built
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_bits_do_not_depend_on_threads(layout):
    maps, rois = small(60, 70, torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            leaves = [LAYOUTS[layout](m.detach()).requires_grad_() for m in maps]
            boxes = rois.clone().requires_grad_()
            out = multi_level_roi_align(leaves, boxes, 7, SCALES, reduce="sum")
            grads = torch.autograd.grad(out.square().sum(), (*leaves, boxes))
            results.append([out.detach(), *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_out():
    maps, rois = small(6, 4, torch.float32)
    for reduce in REDUCTIONS:
        want = multi_level_roi_align(maps, rois, 7, SCALES, reduce=reduce)
        out = torch.full_like(want, torch.nan)
        assert multi_level_roi_align(maps, rois, 7, SCALES, reduce=reduce, out=out) is out
        assert torch.equal(out, want)
        if reduce != "stack":
            nhwc = out.contiguous(memory_format=torch.channels_last)
            multi_level_roi_align(maps, rois, 7, SCALES, reduce=reduce, out=nhwc.fill_(torch.nan))
            assert torch.equal(nhwc, want)
    with pytest.raises(ValueError, match="out must be float32 Tensor"):
        multi_level_roi_align(maps, rois, 7, SCALES, out=out)


@pytest.mark.parametrize(
    "bad",
    [[0, torch.nan, 0, 9, 9], [0, 0, 0, torch.inf, 9], [2, 0, 0, 9, 9], [-1, 0, 0, 9, 9],
     [0.5, 0, 0, 9, 9], [torch.nan, 0, 0, 9, 9], [1e30, 0, 0, 9, 9]],
)  # fmt: skip
def test_invalid_rois(bad):
    maps, rois = small(3, 4, torch.float32)
    maps = [m.requires_grad_() for m in maps]
    rois[1] = torch.tensor(bad)
    for reduce in REDUCTIONS:
        with pytest.raises(ValueError, match="multi_level_roi_align: rois must .* at position 1"):
            multi_level_roi_align(maps, rois, 7, SCALES, reduce=reduce)
        boxes = rois.clone().requires_grad_()
        out = multi_level_roi_align(maps, boxes, 7, SCALES, reduce=reduce, on_invalid="zero")
        assert not out[1].any() and out[0].any() and out[2].any()
        grads = torch.autograd.grad(out.sum(), (*maps, boxes))
        assert all(g.isfinite().all() for g in grads) and not grads[-1][1].any()


def test_extreme_boxes():
    """A huge box ends, an inverted one is 0, a point is the value there."""
    feature = torch.randn(1, 3, 20, 30)
    rois = torch.tensor(
        [[0, -1e9, -1e9, 1e9, 1e9], [0, 9, 2, 3, 8], [0, 3, 8, 9, 2.0], [0, 5.5, 4.5, 5.5, 4.5],
         [0, 1e6, 1e6, 2e6, 2e6]]
    )  # fmt: skip
    for sampling_ratio in (0, 2):
        out = multi_level_roi_align([feature], rois, 3, (1.0,), sampling_ratio)
        assert out.isfinite().all()
        assert not out[1].any() and not out[2].any() and not out[4].any()
        torch.testing.assert_close(out[3], feature[0, :, 4, 5, None, None].expand(3, 3, 3))


def test_poison_stays_where_it_is():
    """NaN and infinite pixels reach only the bins that read them."""
    for layout in ("nchw", "nhwc"):
        feature = LAYOUTS[layout](torch.randn(1, 20, 24, 40))
        poisoned = feature.clone()
        poisoned[:, :, :, 20:] = torch.nan
        poisoned[:, :, 12:] = torch.inf
        rois = torch.tensor([[0.0, 2, 2, 18, 10], [0, 10, 2, 38, 10]])
        clean = multi_level_roi_align([feature], rois, 7, (1.0,))
        got = multi_level_roi_align([poisoned], rois, 7, (1.0,))
        assert torch.equal(got[0], clean[0])
        assert torch.equal(got[1, ..., 0], clean[1, ..., 0]) and got[1, ..., -1].isnan().all()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"features": []}, TypeError, "features must be a non-empty list"),
        ({"features": torch.zeros(1, 1, 2, 2)}, TypeError, "features must be a non-empty list"),
        ({"features": [torch.zeros(1, 2, 2)] * 4}, ValueError, r"features\[0\] must be Tensor"),
        ({"features": [torch.zeros(1, 1, 0, 2)] * 4}, ValueError, "H, W > 0"),
        ({"features": [torch.zeros(1, 1, 2, 2).int()] * 4}, TypeError, "got int32 Tensor"),
        ({"rois": torch.zeros(3, 4)}, ValueError, r"rois must be Tensor\[K, 5\], got float32"),
        ({"rois": torch.zeros(3, 5).long()}, TypeError, "rois must be float32"),
        ({"output_size": 0}, ValueError, "output_size"),
        ({"output_size": (7, 7, 7)}, TypeError, "output_size must be an int or a pair"),
        ({"output_size": 7.0}, TypeError, "output_size"),
        ({"spatial_scales": (0.25,)}, ValueError, "spatial_scales must be a sequence of 4"),
        ({"spatial_scales": (0.25, float("nan"), 1, 1)}, ValueError, "spatial_scales"),
        ({"sampling_ratio": -1}, ValueError, "sampling_ratio"),
        ({"sampling_ratio": 2**31}, ValueError, "sampling_ratio"),
        ({"reduce": "max"}, ValueError, "reduce must be 'select' or"),
        ({"levels": torch.zeros(2).long()}, ValueError, r"levels must be Tensor\[3\]"),
        ({"levels": torch.full((3,), 4)}, ValueError, r"levels must be in \[0, 4\), got 4"),
        ({"levels": torch.zeros(3)}, TypeError, "levels must be an integer"),
        ({"on_invalid": "warn"}, ValueError, "on_invalid"),
    ],
)
def test_wrong_arguments(change, error, text):
    maps, rois = small(3, 1, torch.float32)
    arguments = {
        "features": maps,
        "rois": rois,
        "output_size": 7,
        "spatial_scales": SCALES,
    } | change
    with pytest.raises(error, match=f"multi_level_roi_align: .*{text}|{text}") as caught:
        multi_level_roi_align(**(arguments | change))
    assert str(caught.value).startswith("multi_level_roi_align: ")


@built
def test_second_derivative_is_refused():
    maps, rois = small(2, 2)
    out = multi_level_roi_align([m.requires_grad_() for m in maps], rois, 2, SCALES)
    (grad,) = torch.autograd.grad(out.square().sum(), maps[0], create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        grad.sum().backward()


@pytest.mark.d2
@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_equals_detectron2(pooler_type, sampling_ratio):
    poolers = pytest.importorskip(
        "detectron2.modeling.poolers", reason="Detectron2 is not installed"
    )
    structures = pytest.importorskip("detectron2.structures")
    maps, _ = small(0, 8, torch.float32)
    rois = random_rois(60, (96, 160), 2, (4, 150)).round()  # whole px: no box is at a threshold
    rois = rois[rois[:, 0].argsort(stable=True)]
    boxes = [structures.Boxes(rois[rois[:, 0] == n, 1:]) for n in range(2)]
    pooler = poolers.ROIPooler((7, 7), SCALES, sampling_ratio, pooler_type, 56)
    aligned = pooler_type == "ROIAlignV2"
    got = multi_level_roi_align(maps, rois, 7, SCALES, sampling_ratio, aligned, canonical_size=56)
    torch.testing.assert_close(got, pooler(maps, boxes), rtol=1e-5, atol=1e-5)


@built
def test_pybind_entry_is_the_same_operator():
    _C = pytest.importorskip("segroi._C", reason="built with another Python")

    maps, rois = small(3, 4, torch.float32)
    options = ([7, 7], list(SCALES), 2, True, "sum", 2, 224.0, 4, "raise")
    got = _C.multi_level_roi_align([m.requires_grad_() for m in maps], rois, None, *options)
    torch.testing.assert_close(
        got, multi_level_roi_align(maps, rois, 7, SCALES, 2, reduce="sum"), rtol=0, atol=0
    )
    assert got.requires_grad
