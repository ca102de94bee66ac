"""Function transforms: what works and what does not, as csrc/README.md says."""

from __future__ import annotations

import pytest
import torch

from segroi._extension import is_built
from segroi.ops import crop_and_resize, encompass_crop, multi_level_roi_align

pytestmark = pytest.mark.skipif(not is_built(), reason="the extension is not built")
MAPS = torch.arange(2 * 3 * 16 * 20.0).view(2, 3, 16, 20)
BOXES, IMAGE = torch.tensor([[1, 1, 9, 9]]), torch.zeros(1, dtype=torch.long)


def crop(maps):
    return crop_and_resize(maps, BOXES.float(), IMAGE, 4, coordinates="aligned")


def pool(maps):
    return multi_level_roi_align([maps], torch.tensor([[1, 1, 1, 9.0, 9]]), 3, (1.0,), 2)


def whole_cells(maps):
    return encompass_crop(maps, BOXES, IMAGE, [(8, 8)], grid_size=(16, 20))[0]


def test_crop_and_resize_is_mapped_over_a_new_dimension():
    stack = torch.stack([MAPS, MAPS.flip(3)])
    got = torch.func.vmap(crop)(stack)
    torch.testing.assert_close(got, torch.stack([crop(maps) for maps in stack]))


@pytest.mark.parametrize("op", [pool, whole_cells])
def test_operators_on_lists_of_maps_refuse_to_be_mapped(op):
    with pytest.raises(RuntimeError, match="Batching rule not implemented"):
        torch.func.vmap(op)(torch.stack([MAPS, MAPS]))
