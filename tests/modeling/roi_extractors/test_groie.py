from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import roi_align

from segroi.modeling.roi_extractors import (
    ROI_MODULES,
    GRoIE,
    SingleLevelRoIExtractor,
    build_roi_extractor,
    build_roi_module,
)

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
ROIS = torch.tensor(
    [[0, 3.2, 5.1, 40.7, 30.0], [1, 10, 10, 120, 126], [0, 0, 0, 128, 128], [1, 60, 9, 75, 99]]
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def pyramid(channels=8, dtype=torch.float32, requires_grad=False):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(2, channels, 128 >> k, 128 >> k, generator=generator)
        .to(dtype)
        .requires_grad_(requires_grad)
        for k in range(2, 6)
    ]


def crops_by_level(features, size=7, sampling_ratio=2):
    rois = ROIS.to(features[0].dtype)
    return [
        roi_align(f, rois, size, s, sampling_ratio, aligned=True) for f, s in zip(features, SCALES)
    ]


def groie(pre="none", aggregation="sum", post="none", **kwargs):
    return GRoIE(7, SCALES, 8, pre=pre, aggregation=aggregation, post=post, **kwargs)


def test_bare_sum_is_the_sum_of_four_roi_aligns():
    features = pyramid()
    torch.testing.assert_close(groie()(features, ROIS), sum(crops_by_level(features)))


@pytest.mark.parametrize("shared_pre", [True, False])
@pytest.mark.parametrize("relu_before_sum", [True, False])
@pytest.mark.parametrize("aggregation", ["sum", "sum+", "concat"])
@pytest.mark.parametrize("pre", ["none", "conv3x3", "rect", "non_local1x1"])
def test_four_steps_equal_the_same_steps_by_hand(pre, aggregation, relu_before_sum, shared_pre):
    torch.manual_seed(0)
    module = groie(
        pre, aggregation, "conv3x3", shared_pre=shared_pre, relu_before_sum=relu_before_sum
    )
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    features = pyramid()
    crops = crops_by_level(features)
    crops = [(module.pre if shared_pre else module.pre[k])(x) for k, x in enumerate(crops)]
    crops = [x.relu() for x in crops] if relu_before_sum else crops
    joined = torch.cat(crops, dim=1) if aggregation == "concat" else sum(crops)
    if aggregation != "sum":
        joined = (module.reduce.conv(joined)).relu()
    expected = module.post.conv(joined).relu()
    torch.testing.assert_close(module(features, ROIS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shared_pre", [True, False])
def test_the_identity_before_the_sum_is_no_module(shared_pre):
    features = [f.abs() for f in pyramid()]  # the ReLU of the block lets them through
    module = groie("conv7x7", identity_pre=True, shared_pre=shared_pre)
    torch.testing.assert_close(module(features, ROIS), groie()(features, ROIS))
    assert sum(p.numel() for p in module.parameters()) > 0
    with pytest.raises(ValueError, match="identity_pre"):
        groie("attention", identity_pre=True)


def test_random_level_draws_every_level_and_never_mixes_them():
    features = pyramid()
    crops = torch.stack(crops_by_level(features), dim=1)
    module = groie(aggregation="random")
    drawn = set()
    for _ in range(40):
        distance = (crops - module(features, ROIS)[:, None]).abs().amax(dim=(2, 3, 4))
        assert distance.min(dim=1).values.max() < 1e-5
        drawn |= set(distance.argmin(dim=1).tolist())
    assert drawn == {0, 1, 2, 3}


def test_linear_equals_sum_where_the_module_is_linear():
    torch.manual_seed(0)
    linear, total = groie("conv5x5", "linear"), groie("conv5x5", "sum")
    total.load_state_dict(linear.state_dict())
    for module in (linear, total):
        module.pre.act = nn.Identity()
    features = pyramid()
    torch.testing.assert_close(linear(features, ROIS), total(features, ROIS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"post": "none"}, 1_638_656),
        ({"pre": "none"}, 258_305),
        ({"pre": "none", "post": "non_local1x1"}, 131_712),
        ({}, 1_896_961),
        ({"post": "none", "shared_pre": False}, 6_554_624),
        ({"pre": "conv7x7", "post": "none"}, 3_211_520),
        ({"pre": "none", "post": "non_local7x7"}, 6_423_168),
        ({"pre": "conv7x7", "post": "non_local7x7"}, 9_634_688),
        ({"pre": "conv7x7", "post": "non_local7x7", "shared_pre": False}, 19_269_248),
        ({"pre": "none", "post": "none"}, 0),
        ({"pre": "none", "post": "none", "aggregation": "concat"}, 1024 * 256 + 256),
        ({"pre": "none", "post": "none", "aggregation": "sum+"}, 256 * 256 + 256),
    ],
)
def test_parameter_counts(kwargs, expected):
    assert count(GRoIE(7, SCALES, 256, **kwargs)) == expected


@pytest.mark.parametrize("name", ROI_MODULES)
@pytest.mark.parametrize("size", [7, 14])
def test_every_module_keeps_the_shape(name, size):
    x = torch.randn(2, 16, size, size)
    assert build_roi_module(name, 16)(x).shape == x.shape


@pytest.mark.parametrize("name", ROI_MODULES)
@pytest.mark.parametrize("position", ["pre", "post"])
def test_every_module_trains_in_either_position(name, position):
    module = groie(**{position: name})
    features = pyramid(requires_grad=True)
    module(features, ROIS).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert all(f.grad.any() for f in features)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("aggregation", ["sum", "sum+", "concat", "random", "linear"])
def test_no_roi_gives_an_empty_result_and_zero_gradients(aggregation, training):
    module = groie("conv3x3", aggregation, "attention").train(training)
    features = pyramid(requires_grad=True)
    out = module(features, ROIS[:0])
    assert out.shape == (0, 8, 7, 7)
    out.sum().backward()
    assert all(not p.grad.any() for p in module.parameters())
    assert all(not f.grad.any() for f in features)


def test_one_feature_map_bypasses_every_module():
    module = GRoIE(7, SCALES[:1], 8)
    features = pyramid()[:1]
    expected = roi_align(features[0], ROIS, 7, SCALES[0], 2, aligned=True)
    torch.testing.assert_close(module(features, ROIS), expected)
    assert count(module) == 0


def test_gradients_of_features_and_parameters_by_finite_differences():
    torch.manual_seed(0)
    module = GRoIE(2, SCALES[2:], 6, pre="conv3x3", post="attention").double()
    nn.init.ones_(module.post.gamma)
    features = [f[:, :6, :4, :4].detach().requires_grad_() for f in pyramid(6, torch.float64)[2:]]
    parameters = list(module.parameters())
    rois = ROIS[:1].double()
    assert torch.autograd.gradcheck(
        lambda *inputs: module(inputs[:2], rois), (*features, *parameters[:2]), fast_mode=True
    )


def test_single_level_takes_the_level_of_the_box_size():
    features = pyramid()
    rois = torch.tensor([[0, 0, 0, 20, 20], [0, 0, 0, 112, 112], [1, 0, 0, 128, 128.0]])
    out = SingleLevelRoIExtractor(7, SCALES, 8, canonical_size=56)(features, rois)
    for row, level in zip(range(3), (0, 3, 3)):
        expected = roi_align(features[level], rois[row : row + 1], 7, SCALES[level], 0, True)
        torch.testing.assert_close(out[row : row + 1], expected)


@pytest.mark.parametrize("name", ["SingleLevelRoIExtractor", "GRoIE"])
def test_built_by_name_with_the_common_attributes(name):
    module = build_roi_extractor(name, output_size=(7, 5), spatial_scales=SCALES, in_channels=8)
    assert (module.output_size, module.out_channels) == ((7, 5), 8)
    assert module(pyramid(), ROIS).shape == (4, 8, 7, 5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: build_roi_extractor("GRoIEv9"), "GRoIEv9"),
        (lambda: groie("conv9x9"), "conv9x9"),
        (lambda: groie(aggregation="max"), "'max'"),
        (lambda: groie(aggregation="linear", relu_before_sum=True), "relu_before_sum"),
        (lambda: groie(aggregation="random", shared_pre=False), "shared_pre"),
    ],
)
def test_wrong_settings_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.skipif(
    not hasattr(torch.ops.segroi, "multi_level_roi_align"), reason="the extension is not built"
)
@pytest.mark.parametrize("aggregation", ["sum", "concat", "linear"])
def test_compiles_without_a_graph_break(aggregation):
    module = groie("conv3x3", aggregation, "attention")
    features = pyramid()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features, ROIS), module(features, ROIS))
