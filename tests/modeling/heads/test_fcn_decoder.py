from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segroi.modeling.heads.fcn_decoder import FCNDecoder


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("skips", "expected"),
    [([], 9_747), ([256], 9_747 + 10_659), ([128, 256], 9_747 + 10_659 + 8_227)],
)
def test_parameter_counts(skips, expected):
    assert count(FCNDecoder(512, skips, 19)) == expected


def test_starts_as_bilinear_upsampling_of_the_score():
    decoder = FCNDecoder(6, [5, 4], 3)
    maps = [torch.randn(2, c, s, s) for c, s in ((5, 32), (4, 16), (6, 8))]
    logits = decoder(maps[2], maps[:2])
    twice = decoder.score(maps[2])
    for _ in range(2):
        twice = F.interpolate(twice, scale_factor=2, mode="bilinear", align_corners=False)
    assert logits.shape == (2, 3, 32, 32)
    torch.testing.assert_close(logits[..., 4:-4, 4:-4], twice[..., 4:-4, 4:-4])


def test_steps_add_the_skip_of_their_own_resolution():
    decoder = FCNDecoder(2, [2, 2], 2)
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(decoder.skips[0].weight)
    fine, coarse = torch.rand(1, 2, 8, 8), torch.rand(1, 2, 4, 4)
    logits = decoder(torch.rand(1, 2, 2, 2), [fine, coarse])
    torch.testing.assert_close(logits, fine.sum(1, keepdim=True).expand(1, 2, 8, 8))


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (31, 40)])
def test_sizes_that_rounded_up(size):
    decoder = FCNDecoder(4, [3, 3], 2)
    halves = [[-(-s // 2**i) for s in size] for i in range(3)]
    fine, coarse, last = (torch.randn(1, c, *s) for c, s in zip((3, 3, 4), halves))
    assert decoder(last, [fine, coarse]).shape[-2:] == size


def test_wrong_number_of_skips():
    with pytest.raises(ValueError, match="expected 1 skips, got 0"):
        FCNDecoder(4, [3], 2)(torch.zeros(1, 4, 2, 2))
