from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segroi.modeling.roi_extractors import MultiScaleSubnetwork, convolve_maps
from segroi.modeling.roi_extractors.convolve_maps import convolve_pixels, pixels_read
from segroi.ops import crop_and_resize

SIZE = (2, 9, 12)


def random_boxes(count, seed=0):
    """Of all sizes; some leave the map, some are points."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * 18 - 4
    side = torch.rand(count, 2, generator=g) ** 2 * 14
    side[::7] = 0
    return torch.cat([corner, corner + side], 1), torch.randint(2, (count,), generator=g)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("coordinates", ["aligned", "tf"])
def test_pixels_read_hold_every_pixel_that_has_a_gradient(seed, coordinates):
    boxes, index = random_boxes(3, seed)
    maps = torch.zeros(2, 1, *SIZE[1:], dtype=torch.float64, requires_grad=True)
    if coordinates == "aligned":
        given, shift = boxes, 0.5
    else:  # y0, x0, y1, x1, where 1 is the last pixel
        given = boxes[:, [1, 0, 3, 2]] / torch.tensor([8, 11, 8, 11])
        shift = 0
    crops = crop_and_resize(maps, given, index, 16, coordinates=coordinates)
    (gradient,) = torch.autograd.grad(crops.sum(), maps)
    read = pixels_read(boxes - shift, index, SIZE)
    assert read.shape == SIZE and read.dtype == torch.bool
    assert not (gradient[:, 0].bool() & ~read).any()


def test_pixels_read_are_no_more_than_the_rectangles_of_the_boxes():
    boxes = torch.tensor([[2.0, 1.0, 4.5, 3.0], [0.5, 7.2, 0.5, 7.2], [9.0, 9.0, 4.0, 2.0]])
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[0, 1:5, 2:6] = True
    expected[1, 7:9, 0:2] = True
    expected[1, 8, 9] = True  # an inverted box: its first corner
    assert torch.equal(pixels_read(boxes, torch.tensor([0, 1, 1]), SIZE), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_pixels_read_of_any_coordinate_are_inside_the_map(value):
    for column in range(4):
        boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0]])
        boxes[0, column] = value
        assert pixels_read(boxes, torch.tensor([-3]), SIZE)[0].any()
    assert not pixels_read(boxes[:0], torch.zeros(0), SIZE).any()
    assert pixels_read(boxes, torch.tensor([0]), (0, 9, 12)).shape == (0, 9, 12)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_some_pixels_are_convolved_as_all_are(dtype, layout, share):
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 16, 20, 24, generator=g).to(dtype).contiguous(memory_format=layout)
    weight = torch.randn(6, 16, 1, 1, generator=g).to(dtype)
    where = torch.rand(2, 20, 24, generator=g) < share
    where[1] &= share > 0.4  # an image that nothing reads
    asked = where[:, None].expand(-1, 6, -1, -1)
    result = convolve_pixels(maps, weight, where)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result[asked], F.conv2d(maps, weight)[asked])
    assert (result[~asked] == 0).all()
    assert convolve_pixels(maps[:0], weight, where[:0]).shape == (0, 6, 20, 24)


def test_autocast_gives_its_type_whatever_is_asked_for():
    maps, weight = torch.randn(1, 16, 20, 24), torch.randn(6, 16, 1, 1)
    where = torch.rand(1, 20, 24) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        some, whole = (convolve_pixels(maps, weight, asked) for asked in (where, None))
    assert some.dtype == whole.dtype == torch.bfloat16
    asked = where[:, None].expand(-1, 6, -1, -1)
    torch.testing.assert_close(some[asked], whole[asked])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("coordinates", ["aligned", "tf"])
@pytest.mark.parametrize("relu", [True, False])
@torch.no_grad()
def test_what_no_roi_reads_is_not_convolved(relu, coordinates, aligned, monkeypatch):
    """A map that is NaN but where the RoIs lie gives numbers, equal to those of the whole map."""
    torch.manual_seed(0)
    module = MultiScaleSubnetwork(
        4, (1 / 4, 1 / 8), 6, 5, coordinates=coordinates, relu=relu, aligned=aligned, norm=None,
        canonical_size=32, canonical_level=3,
    )  # fmt: skip
    rois = torch.tensor([[0, 3, 5, 30, 29], [1, 40, 8, 56, 20], [1, 30.5, 12, 61, 60]])
    rois = rois.repeat(40, 1)  # so many that maps are convolved, not crops
    maps = [torch.randn(2, 6, 32 >> level, 32 >> level) for level in range(2)]
    expected = module(maps, rois)
    for each, read in zip(maps, module._pixels_read(maps, rois)):
        assert 0 < read.sum() < convolve_maps.WORTH_GATHERING * read.numel()
        each.masked_fill_(~read[:, None], float("nan"))
    torch.testing.assert_close(module(maps, rois), expected)
