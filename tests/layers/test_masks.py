from __future__ import annotations

import torch
from torch.nn import functional as F

from segroi.layers.masks import masks_in_regions, paste_masks


def test_paste_equals_interpolation_in_an_aligned_region():
    logits = torch.randn(3, 5, 7)
    regions = torch.tensor([[2.0, 3.0, 30.0, 23.0]] * 3)
    masks = paste_masks(logits, regions, (40, 50))
    expected = F.interpolate(logits[None], (20, 28), mode="bilinear", align_corners=False)[0] > 0
    assert torch.equal(masks[:, 3:23, 2:30], expected)
    masks[:, 3:23, 2:30] = False
    assert not masks.any()


def test_paste_clips_regions_and_writes_into_out():
    logits = torch.ones(3, 4, 4)
    regions = torch.tensor(
        [[-10.0, -10.0, 5.0, 5.0], [15.4, 5.6, 99.0, 99.0], [50.0, 50.0, 60.0, 60.0]]
    )
    out = torch.zeros(3, 10, 20, dtype=torch.bool)
    assert paste_masks(logits, regions, (10, 20), out=out) is out
    assert out[0].sum() == 25
    assert out[1].sum() == 5 * 4  # columns 15 to 19 and rows 6 to 9: centres inside
    assert out[2].sum() == 0
    assert paste_masks(logits[:0], regions[:0], (10, 20)).shape == (0, 10, 20)


def test_paste_writes_chosen_masks_of_out():
    logits, regions = torch.randn(3, 4, 4), torch.tensor([[-3.0, 2.2, 9.7, 8.0]] * 3)
    expected = torch.zeros(5, 10, 20, dtype=torch.bool)
    expected[[4, 0, 2]] = paste_masks(logits, regions, (10, 20))
    out, index = torch.zeros_like(expected), torch.tensor([4, 0, 2])
    assert paste_masks(logits, regions, (10, 20), out=out, index=index) is out
    assert torch.equal(out, expected) and expected.any()


def test_paste_of_a_whole_chunk_equals_one_by_one(monkeypatch):
    from segroi.layers import masks as module

    logits, regions = torch.randn(6, 8, 8), torch.rand(6, 4) * 20
    regions[:, 2:] = regions[:, :2] + 3 + torch.rand(6, 2) * 20
    one_by_one = paste_masks(logits, regions, (33, 44))
    together = torch.zeros(6, 33, 44, dtype=torch.bool)
    module._paste_chunk(logits, regions, together, 0.0)
    assert torch.equal(one_by_one, together)


def test_targets_of_regions():
    masks = torch.zeros(2, 40, 60)
    masks[0, 10:20, 20:40] = 1
    masks[1] = 1
    regions = torch.tensor([[20.0, 10.0, 40.0, 20.0], [0.0, 0.0, 60.0, 40.0]])
    assert masks_in_regions(masks, regions, (5, 5)).all()
    wider = torch.tensor([[0.0, 10.0, 40.0, 20.0]])
    half = masks_in_regions(masks[:1], wider, (4, 8))
    assert torch.equal(half, torch.tensor([0.0] * 4 + [1.0] * 4).expand(1, 4, 8))
    assert masks_in_regions(masks[:0], regions[:0], (4, 8)).shape == (0, 4, 8)


def test_targets_survive_pasting():
    generator = torch.Generator().manual_seed(0)
    coarse = (torch.rand(4, 6, 6, generator=generator) > 0.5).float()
    regions = torch.tensor([[8.0, 16.0, 56.0, 64.0]]).expand(4, 4)
    masks = paste_masks(coarse - 0.5, regions, (80, 80))
    assert torch.equal(masks_in_regions(masks, regions, (6, 6)), coarse)
