"""Random shapes, boxes, dtypes and layouts of every operator against its reference in float64."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segroi import ops
from segroi.ops.reference.crop_and_resize import crop_and_resize as crop_reference
from segroi.ops.reference.multi_level_roi_align import multi_level_roi_align as align_reference

BOUNDED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
DTYPES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
LAYOUTS = {
    "nchw": lambda t: t.contiguous(),
    "nhwc": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda t: torch.nn.functional.pad(t, (1, 2, 0, 1))[:, :, : t.shape[2], 1:-2],
}


@st.composite
def maps(draw, n, c, h, w):
    """A map of small integers, so that it is exact in every dtype."""
    seed = draw(st.integers(0, 2**20))
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, (n, c, h, w), generator=g).double()


def coordinate(low, high):
    """Anything in the range, with a liking for cell borders; exact in float32."""
    anything = st.floats(low, high, width=32, allow_subnormal=False)
    return st.one_of(anything, st.integers(round(2 * low), round(2 * high)).map(lambda i: i / 2))


def close(got, want, dtype):
    assert got.dtype == dtype
    tolerance = DTYPES[dtype]
    scale = max(1.0, float(want.detach().abs().max())) if want.numel() else 1.0
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * scale)


@st.composite
def crops(draw):
    n, c = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 8, 17]))
    h, w, k = draw(st.integers(1, 17)), draw(st.integers(1, 40)), draw(st.integers(0, 5))
    boxes = draw(st.lists(st.tuples(*[coordinate(-4, 44)] * 4), min_size=k, max_size=k))
    index = draw(st.lists(st.integers(0, n - 1), min_size=k, max_size=k))
    pool = draw(st.integers(1, 4))
    size = [pool * draw(st.integers(1, 9)), pool * draw(st.integers(1, 9))]
    method = draw(st.sampled_from(["bilinear", "nearest"]))
    return (
        draw(maps(n, c, h, w)),
        torch.tensor(boxes, dtype=torch.float64).view(k, 4),
        torch.tensor(index, dtype=torch.long),
        (size, method, draw(st.sampled_from([0.0, -1.5])), "aligned", pool),
        draw(st.sampled_from(list(DTYPES))),
        draw(st.sampled_from(list(LAYOUTS))),
    )


@BOUNDED
@given(crops())
def test_crop_and_resize(case):
    features, boxes, index, options, dtype, layout = case
    boxes = boxes if dtype == torch.float64 else boxes.float()
    mine = LAYOUTS[layout](features).to(dtype).detach().requires_grad_()
    theirs = features.detach().requires_grad_()
    got = ops.crop_and_resize(mine, boxes, index, *options)
    want = crop_reference(theirs, boxes.to(boxes.dtype), index, *options)
    close(got, want, dtype)
    seed = (torch.arange(want.numel()).view(want.shape) % 5 - 2).double()
    (grad,) = torch.autograd.grad(got, mine, seed.to(dtype))
    close(grad, torch.autograd.grad(want, theirs, seed)[0], dtype)


@BOUNDED
@given(crops(), st.data())
def test_crop_and_resize_of_one_box_alone(case, data):
    """A box's crop depends on no other box."""
    features, boxes, index, options, dtype, layout = case
    if not len(boxes):
        return
    boxes = boxes if dtype == torch.float64 else boxes.float()
    features = LAYOUTS[layout](features).to(dtype)
    together = ops.crop_and_resize(features, boxes, index, *options)
    k = data.draw(st.integers(0, len(boxes) - 1))
    alone = ops.crop_and_resize(features, boxes[k : k + 1], index[k : k + 1], *options)
    assert torch.equal(together[k : k + 1], alone)


@st.composite
def pyramids(draw):
    n, c, levels = (
        draw(st.integers(1, 2)),
        draw(st.sampled_from([1, 3, 9])),
        draw(st.integers(1, 3)),
    )
    sizes = [(draw(st.integers(1, 17)), draw(st.integers(1, 33))) for _ in range(levels)]
    k = draw(st.integers(0, 4))
    image = st.integers(0, n - 1).map(float)
    corner = st.tuples(coordinate(-32, 150), coordinate(-32, 150))
    extent = st.tuples(coordinate(0, 200), coordinate(0, 200))
    boxes = [(draw(image), draw(corner), draw(extent)) for _ in range(k)]
    rois = [[i, x, y, x + w, y + h] for i, (x, y), (w, h) in boxes]
    reduce = draw(st.sampled_from(["select", "stack", "sum", "concat"]))
    return (
        [draw(maps(n, c, h, w)) for h, w in sizes],
        torch.tensor(rois, dtype=torch.float32).view(k, 5),
        [draw(st.integers(1, 8)), draw(st.integers(1, 8))],
        [1 / (4 << i) for i in range(levels)],
        (draw(st.integers(0, 3)), draw(st.booleans()), reduce),
        draw(st.sampled_from(list(DTYPES))),
        draw(st.sampled_from(list(LAYOUTS))),
    )


@BOUNDED
@given(pyramids())
def test_multi_level_roi_align(case):
    features, rois, size, scales, options, dtype, layout = case
    mine = [LAYOUTS[layout](f).to(dtype).detach().requires_grad_() for f in features]
    theirs = [f.detach().requires_grad_() for f in features]
    mine_rois = rois.to(torch.float64 if dtype == torch.float64 else torch.float32)
    got = ops.multi_level_roi_align(mine, mine_rois, size, scales, *options)
    want = align_reference(theirs, rois, size, scales, *options)
    close(got, want, dtype)
    seed = (torch.arange(want.numel()).view(want.shape) % 5 - 2).double()
    got = torch.autograd.grad(got, mine, seed.to(dtype))
    for mine_grad, grad in zip(got, torch.autograd.grad(want, theirs, seed), strict=True):
        close(mine_grad, grad, dtype)


@st.composite
def integer_crops(draw):
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    k, factors = draw(st.integers(0, 6)), draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    factors = sorted({1, *factors})
    cells = []
    for _ in range(k):
        x0, y0 = draw(st.integers(0, w - 1)), draw(st.integers(0, h - 1))
        cells.append([x0, y0, draw(st.integers(x0 + 1, w)), draw(st.integers(y0 + 1, h))])
    index = draw(st.lists(st.integers(0, n - 1), min_size=k, max_size=k))
    features = [draw(maps(n, draw(st.integers(1, 5)), f * h, f * w)) for f in factors]
    return (
        features,
        torch.tensor(cells, dtype=torch.long).view(k, 4),
        torch.tensor(index, dtype=torch.long),
        (h, w),
        draw(st.sampled_from([*DTYPES, torch.int32, torch.uint8])),
        draw(st.sampled_from(list(LAYOUTS))),
    )


@BOUNDED
@given(integer_crops())
def test_encompass_crop(case):
    """Crops are slices of their map, and the gradient counts the crops that show a pixel."""
    features, cells, index, (h, w), dtype, layout = case
    features = [LAYOUTS[layout](f).to(dtype) for f in features]
    floating = dtype.is_floating_point
    features = [f.detach().requires_grad_(floating) for f in features]
    (crops,) = ops.encompass_crop(features, cells, index, [(h, w)])
    shown = [torch.zeros_like(f) for f in features]
    for f, stack, count in zip(features, crops, shown, strict=True):
        factor = f.shape[2] // h
        assert stack.shape == (len(cells), f.shape[1], h * factor, w * factor)
        for k, (x0, y0, x1, y1) in enumerate((cells * factor).tolist()):
            want = torch.zeros_like(stack[k])
            want[:, : y1 - y0, : x1 - x0] = f[index[k], :, y0:y1, x0:x1]
            assert torch.equal(stack[k], want)
            count[index[k], :, y0:y1, x0:x1] += 1
    if floating:
        grads = torch.autograd.grad(sum(stack.sum() for stack in crops), features)
        for grad, count in zip(grads, shown, strict=True):
            assert torch.equal(grad, count)


@BOUNDED
@given(st.lists(st.tuples(*[coordinate(-40, 700)] * 4), max_size=6), st.integers(1, 40))
def test_encompassing_boxes(boxes, grid):
    """They contain the box (within the image), lie on the grid, and are the smallest such."""
    boxes = torch.tensor(boxes, dtype=torch.float64).view(-1, 4)
    cells = ops.encompassing_boxes(boxes, (640, 640), grid)
    assert (cells[:, :2] >= 0).all() and (cells[:, 2:] <= grid).all()
    assert (cells[:, :2] < cells[:, 2:]).all()
    again = ops.encompassing_boxes(cells.double() * (640 / grid), (640, 640), grid)
    assert torch.equal(again, cells)
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = ((low >= 0) & (high <= 640) & (low < high)).all(1)
    px, slack = cells.double() * (640 / grid), 2e-6 * 640 / grid
    assert (px[inside][:, :2] <= low[inside] + slack).all()
    assert (px[inside][:, 2:] >= high[inside] - slack).all()
    smaller = (px[inside][:, :2] + 640 / grid > low[inside] - slack).all()
    assert smaller and (px[inside][:, 2:] - 640 / grid < high[inside] + slack).all()
