"""Strides traded for dilation give the same network, evaluated on a denser grid."""

from __future__ import annotations

import pytest
import torch

from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1
from segroi.modeling.semantic.low_cost import build_low_cost_segmenter


@pytest.mark.parametrize(
    ("output_stride", "strides", "rates"),
    [
        (32, {6: 2, 12: 2}, {12: 1, 13: 1}),
        (16, {6: 2, 12: 1}, {11: 1, 12: 1, 13: 2}),
        (8, {6: 1, 12: 1}, {6: 1, 7: 2, 11: 2, 12: 2, 13: 4}),
    ],
)
@pytest.mark.parametrize("last_atrous_rate", [1, 3, 5])
def test_strides_and_rates_of_mobilenet(output_stride, strides, rates, last_atrous_rate):
    blocks = MobileNetV1(0.25, output_stride, last_atrous_rate).model
    for block, stride in strides.items():
        assert blocks[block][0].stride == (stride, stride)
    for block, rate in rates.items():
        rate *= last_atrous_rate if block == 13 else 1
        assert blocks[block][0].dilation == (rate, rate)


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize(("padding", "size"), [("symmetric", (64, 96)), ("same", (65, 97))])
def test_dense_mobilenet_agrees_on_the_strided_grid(output_stride, padding, size):
    torch.manual_seed(0)
    strided = MobileNetV1(0.25, padding=padding).eval()
    dense = MobileNetV1(0.25, output_stride, padding=padding).eval()
    dense.load_state_dict(strided.state_dict())
    images, step = torch.randn(1, 3, *size), 32 // output_stride
    every = dense(images)["conv13"][..., ::step, ::step]
    torch.testing.assert_close(every, strided(images)["conv13"])


@pytest.mark.parametrize(
    ("kwargs", "stride"),
    [
        ({"output_stride": 32}, 32),
        ({"output_stride": 16}, 16),
        ({"output_stride": 8}, 8),
        ({"steps": 1}, 16),
        ({"steps": 2}, 8),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (90, 61)])
def test_resolution_of_the_scores(kwargs, stride, size):
    model = build_low_cost_segmenter(depth_multiplier=0.25, num_classes=2, **kwargs).eval()
    shapes = []
    model.sem_seg_head.register_forward_hook(lambda _, __, scores: shapes.append(scores.shape[-2:]))
    model(torch.zeros(1, 3, *size))
    assert shapes == [tuple(-(-s // stride) for s in size)]
