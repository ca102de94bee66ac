"""Random shapes, boxes, dtypes and layouts of every operator against its reference in float64."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segroi import ops
from segroi.ops.reference.crop_and_resize import crop_and_resize as crop_reference

BOUNDED = settings(
    max_examples=60,
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
