from __future__ import annotations

import pytest
import torch

from segroi.modeling.heads.box_head import FCC, FCC_VARIANTS, BoxPredictor, build_box_head


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def with_predictor(variant, **kwargs):
    head = build_box_head(variant, **kwargs)
    return count(head, BoxPredictor(head.out_features, 80))


@pytest.mark.parametrize(
    ("variant", "kwargs", "expected"),
    [
        ("a", {}, 13_982_805),
        ("b", {}, 2_273_877),
        ("c", {}, 2_847_701),
        ("d", {}, 8_697_045),
        ("e", {}, 9_270_869),
        ("e_early", {}, 7_980_437),
        ("d", {"non_local_after": True}, 8_697_045 + 401_568),
    ],
)
def test_counts_of_the_detection_heads(variant, kwargs, expected):
    assert with_predictor(variant, **kwargs) == expected


def test_counts_of_table_1():
    fc, square, rect = (build_box_head(variant) for variant in "abc")
    assert [count(fc[1]), count(fc[3])] == [12_846_080, 1_049_600]
    assert [count(step) for step in square[0]] == [1_605_760, 401_472]
    assert [count(conv) for step in rect[0] for conv in step] == [
        1_376_512,
        688_256,
        344_192,
        172_096,
    ]


@pytest.mark.parametrize(
    ("padding", "size", "middle"),
    [
        ("code", 7, (3, 7)),
        ("code", 14, (10, 14)),
        ("paper", 7, (7, 11)),
        ("same", 7, (7, 7)),
    ],
)
def test_rectangular_kernels_return_to_the_input_size(padding, size, middle):
    fcc = FCC(8, "c", padding=padding)
    sizes = []
    for step in fcc:
        step[0].register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[2:])))
    assert fcc(torch.randn(2, 8, size, size)).shape == (2, 2, size, size)
    assert sizes == [middle, middle]


@pytest.mark.parametrize("variant", ["a", *FCC_VARIANTS])
@pytest.mark.parametrize("rows", [0, 3])
def test_every_variant_trains_also_without_rows(variant, rows):
    head = build_box_head(variant, 8, 7, fc_dim=16, non_local_after=variant != "a")
    predictor = BoxPredictor(head.out_features, 5)
    x = torch.randn(rows, 8, 7, 7, requires_grad=True)
    logits, deltas = predictor(head(x))
    assert (logits.shape, deltas.shape) == ((rows, 6), (rows, 4))
    (logits.sum() + deltas.sum()).backward()
    gradients = [p.grad for p in (*head.parameters(), *predictor.parameters())]
    assert all(gradient is not None for gradient in gradients)
    assert rows or not any(gradient.any() for gradient in gradients)


def test_non_local_blocks_stand_before_and_after_with_a_relu_each():
    x = torch.randn(2, 8, 7, 7)
    fcc = FCC(8, "d", non_local_after=True)
    first, second = fcc[2], fcc[3]
    # Non-local blocks start as the identity, so only their ReLUs remain.
    torch.testing.assert_close(fcc(x), second(first(x.relu())).relu())


def test_unknown_variant_is_named():
    with pytest.raises(ValueError, match="'z'"):
        build_box_head("z")
