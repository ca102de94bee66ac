"""Memory layouts: what results and gradients follow, and what may be written into."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from segroi._extension import is_built
from segroi.ops import crop_and_resize, encompass_crop, multi_level_roi_align
from segroi.ops._layout import empty_large

built = pytest.mark.skipif(not is_built(), reason="the operators are not built")
BOXES = torch.tensor([[2.0, 1.5, 9.0, 7.0], [0.5, 3.0, 4.0, 11.5]])
IMAGE = torch.tensor([1, 0])


def pool(maps, out=None):
    rois = torch.cat([IMAGE[:, None].float(), BOXES], 1)
    return multi_level_roi_align([maps, maps[..., ::2, ::2]], rois, 3, [1.0, 0.5], out=out)


def crop(maps, out=None):
    return crop_and_resize(maps, BOXES, IMAGE, 6, coordinates="aligned", pool=2, out=out)


def layouts():
    """The same values behind different strides, and whether the channels lie side by side."""
    maps = torch.randn(2, 5, 12, 14, generator=torch.Generator().manual_seed(0))
    wide = torch.cat([maps, maps], 1)
    last = torch.channels_last
    return {
        "contiguous": (maps, False),
        "channels_last": (maps.contiguous(memory_format=last), True),
        "channels of channels_last": (wide.contiguous(memory_format=last)[:, 5:], True),
        "channels of contiguous": (wide[:, 5:], False),
        "part of channels_last": (wide.contiguous(memory_format=last)[:, :5, :9, 2:], True),
        "transposed": (maps.transpose(2, 3).contiguous().transpose(2, 3), False),
        "one channel of channels_last": (wide.contiguous(memory_format=last)[:, 3:4], False),
    }


def is_dense(t, channels_last):
    return t.is_contiguous(memory_format=torch.channels_last if channels_last else _NCHW)


_NCHW = torch.contiguous_format


@built
@pytest.mark.parametrize("op", [pool, crop])
@pytest.mark.parametrize("layout", list(layouts()))
def test_results_and_gradients_follow_the_channels(op, layout):
    maps, channels_last = layouts()[layout]
    leaf = maps.detach().requires_grad_()
    result = op(leaf)
    assert is_dense(result, channels_last)
    plain = maps.contiguous().requires_grad_()
    torch.testing.assert_close(result, op(plain))
    seed = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    (ours,) = torch.autograd.grad(result, leaf, seed)
    torch.testing.assert_close(ours, torch.autograd.grad(op(plain), plain, seed)[0])


@built
@pytest.mark.parametrize("op", [pool, crop])
@pytest.mark.parametrize("layout", list(layouts()))
def test_fake_tensors_have_the_strides_of_real_ones(op, layout):
    maps, _ = layouts()[layout]
    real = op(maps)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = op(mode.from_tensor(maps))
    assert fake.stride() == real.stride()


@built
@pytest.mark.parametrize("layout", list(layouts()))
def test_gradients_have_the_layout_that_was_announced(layout):
    maps, _ = layouts()[layout]
    pyramid = [maps, maps[..., ::2, ::2].contiguous()]  # of different layouts
    rois = torch.cat([IMAGE[:, None].float(), BOXES], 1)
    options = (None, [3, 3], [1.0, 0.5], 0, True, "select", 0, 224.0, 4, "raise", True, False)
    grad = torch.randn(2, maps.shape[1], 3, 3)
    op = torch.ops.segroi.multi_level_roi_align_backward
    real, _ = op(grad, pyramid, rois, *options)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake, _ = op(grad, [mode.from_tensor(m) for m in pyramid], rois, *options)
    assert [f.stride() for f in fake] == [r.stride() for r in real]


@pytest.mark.parametrize("op", [pool, crop])
@pytest.mark.parametrize("channels_last", [False, True])
def test_writes_into_channels_of_a_wider_tensor(op, channels_last):
    maps, _ = layouts()["channels_last" if channels_last else "contiguous"]
    want = op(maps)
    wide = torch.zeros(2, 12, 3, 3)
    if channels_last:
        wide = wide.contiguous(memory_format=torch.channels_last)
    op(maps, out=wide[:, 4:9])
    torch.testing.assert_close(wide[:, 4:9], want)
    assert not wide[:, :4].any() and not wide[:, 9:].any()


@built
@pytest.mark.parametrize("op", [pool, crop])
def test_refuses_to_write_where_elements_coincide(op):
    maps, _ = layouts()["contiguous"]
    shape = op(maps).shape
    name = "multi_level_roi_align" if op is pool else "crop_and_resize"
    for out in (torch.zeros(1).expand(shape), maps[:, :, :3, :3], maps.view(-1)[:90].view(shape)):
        with pytest.raises(ValueError, match=f"{name}: out must be memory of its own"):
            op(maps, out=out)


@built
def test_encompass_crop_refuses_outputs_that_coincide():
    maps, _ = layouts()["contiguous"]
    cells = torch.tensor([[1, 1, 4, 4], [0, 2, 3, 5]])
    (want,) = encompass_crop(maps, cells, IMAGE, [(4, 4)])
    for out in (torch.zeros(1).expand(want.shape), maps.view(-1)[: want.numel()].view(want.shape)):
        with pytest.raises(ValueError, match="encompass_crop: out must be"):
            encompass_crop(maps, cells, IMAGE, [(4, 4)], out=[out])


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [(0, 3, 4, 5), (2, 3, 4, 5), (3, 8, 300, 301)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_for_what_is_made_of_results(dtype, size, channels_last):
    like = torch.zeros(1, dtype=dtype)
    for value in (1.0, 2.0):  # the second one takes over the pages of the first
        one, other = (empty_large(like, size, channels_last) for _ in range(2))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert one.shape == size and one.dtype == dtype
        assert one.stride() == torch.empty(size, memory_format=layout).stride()
        one.fill_(value), other.fill_(-value)
        assert (one == value).all() and (other == -value).all()
        del one, other
