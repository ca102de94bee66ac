from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torchvision.ops import roi_align

from segroi.modeling.roi_extractors import (
    MultiScaleSubnetwork,
    build_roi_extractor,
    multi_scale_subnetwork,
)

SCALES = (1 / 4, 1 / 8)
# The last RoIs leave the image, where a sample is 0 before the bias of the convolution.
ROIS = torch.tensor(
    [
        [0, 3.2, 5.1, 40.7, 30.0],
        [1, 4, 10, 60, 62],
        [0, 0, 0, 64, 64],
        [1, -30, 9, 50, 99],
        [0, 50, 50, 90, 90],
    ],
    dtype=torch.float64,
)


def features(levels=2, channels=6, requires_grad=False):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(
            2, channels, 64 >> k, 64 >> k, generator=generator, dtype=torch.float64
        ).requires_grad_(requires_grad)
        for k in range(2, 2 + levels)
    ]


def subnetwork(output_size=4, levels=2, **kwargs):
    torch.manual_seed(0)
    module = MultiScaleSubnetwork(
        output_size, SCALES[:levels], 6, 5, canonical_size=32, canonical_level=3, **kwargs
    ).double()
    for branch in module.branches:
        for name, value in branch.named_parameters():
            nn.init.normal_(value, mean=float(name == "norm.weight"), std=0.3)
        if getattr(getattr(branch, "norm", None), "running_mean", None) is not None:
            nn.init.normal_(branch.norm.running_mean)
            nn.init.uniform_(branch.norm.running_var, 0.5, 2)
    return module


def ordinary(module, maps, rois):
    """The paper's order: crop, 1x1 convolution, norm, ReLU, average, concatenate, fuse."""
    pooled = [
        F.avg_pool2d(branch(module._crop(maps, rois, factor)), factor)
        for branch, factor in zip(module.branches, module.factors)
    ]
    return module.fuse(torch.cat(pooled, dim=1))


@pytest.mark.parametrize(("factor", "sampling_ratio"), [(1, 1), (2, 2), (4, 4)])
def test_aligned_crop_and_average_is_roi_align_with_more_samples(factor, sampling_ratio):
    module = subnetwork(14, levels=1)
    maps = features(1)
    pooled = F.avg_pool2d(module._crop(maps, ROIS, factor), factor)
    expected = roi_align(maps[0], ROIS, 14, SCALES[0], sampling_ratio, aligned=True)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(module._crop(maps, ROIS, factor, pool=factor), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["BN", None, lambda c: nn.GroupNorm(5, c)])
@pytest.mark.parametrize("coordinates", ["aligned", "tf"])
@pytest.mark.parametrize("repeat", [1, 20], ids=["convolution on crops", "on the map"])
def test_nonlinear_branches_give_what_the_order_of_the_paper_gives(
    repeat, coordinates, norm, training
):
    module = subnetwork(coordinates=coordinates, norm=norm).train(training)
    assert not module.is_linear
    maps, rois = features(requires_grad=True), ROIS.repeat(repeat, 1)
    out, expected = module(maps, rois), ordinary(module, maps, rois)
    torch.testing.assert_close(out, expected)
    inputs = [*maps, *module.parameters()]
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (out, expected)]
    torch.testing.assert_close(*gradients)


def test_statistics_of_the_batch_are_those_of_the_samples():
    module, other = subnetwork().train(), subnetwork().train()
    maps, rois = features(), ROIS.repeat(20, 1)
    module(maps, rois)
    ordinary(other, maps, rois)
    for one, two in zip(module.buffers(), other.buffers()):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN", None])
@pytest.mark.parametrize("coordinates", ["aligned", "tf"])
@pytest.mark.parametrize("repeat", [1, 20], ids=["average first", "convolution on the map"])
def test_linear_rewrites_are_exact(repeat, coordinates, norm, levels):
    module = subnetwork(levels=levels, coordinates=coordinates, norm=norm, relu=False).eval()
    assert module.is_linear
    maps, rois = features(levels), ROIS.repeat(repeat, 1)
    torch.testing.assert_close(module(maps, rois), ordinary(module, maps, rois))


@pytest.mark.parametrize(
    ("relu", "repeat", "expected"),
    [
        (False, 1, [6, 6, 6]),  # 80 averaged cells per branch, 640 pixels
        (False, 20, [5, 5, 5]),
        (True, 1, [6, 6, 5]),  # 80, 320 and 1280 cells
        (True, 20, [5, 5, 5]),
    ],
)
def test_convolution_runs_on_the_smaller_side(relu, repeat, expected):
    module = subnetwork(relu=relu, norm=None)
    sampled = []
    crop = module._crop

    def spy(maps, *args, **kwargs):
        sampled.append(maps[0].shape[1])
        return crop(maps, *args, **kwargs)

    module._crop = spy
    module(features(), ROIS.repeat(repeat, 1))
    assert sampled == expected


@pytest.mark.parametrize(
    ("kwargs", "training", "linear"),
    [
        ({"relu": False}, False, True),
        ({"relu": False}, True, False),
        ({"relu": True}, False, False),
        ({"relu": False, "norm": None}, True, True),
        ({"relu": False, "norm": "FrozenBN"}, True, True),
        ({"relu": False, "norm": nn.InstanceNorm2d}, False, False),
        ({"relu": False, "norm": lambda c: nn.GroupNorm(5, c)}, False, False),
        (
            {"relu": False, "norm": lambda c: nn.BatchNorm2d(c, track_running_stats=False)},
            False,
            False,
        ),
        ({"relu": False, "norm": lambda c: nn.BatchNorm2d(c, affine=False)}, False, False),
    ],
)
def test_averaging_first_is_refused_where_it_is_not_exact(kwargs, training, linear):
    module = subnetwork(**kwargs).train(training)
    assert module.is_linear is linear
    torch.testing.assert_close(module(features(), ROIS), ordinary(module, features(), ROIS))


def test_gradients_of_the_rewrite_equal_those_of_the_ordinary_order():
    module = subnetwork(relu=False, norm="BN").eval()
    maps = features(requires_grad=True)
    inputs = [*maps, *module.parameters()]
    rewritten = torch.autograd.grad(module(maps, ROIS).square().sum(), inputs)
    expected = torch.autograd.grad(ordinary(module, maps, ROIS).square().sum(), inputs)
    torch.testing.assert_close(rewritten, expected)


def test_tf_crop_samples_the_corners_of_the_box():
    module = subnetwork(3, levels=1, coordinates="tf", crop_sizes=(3,))
    maps = features(1)
    rois = torch.tensor([[1, 8.0, 4.0, 40.0, 52.0]], dtype=torch.float64)
    crop = module._crop(maps, rois, 1)
    ys, xs = torch.tensor([1.0, 7.0, 13.0]), torch.tensor([2.0, 6.0, 10.0])
    expected = maps[0][1][:, ys.long()[:, None], xs.long()]
    torch.testing.assert_close(crop[0], expected)


def test_tf_levels_are_those_of_the_aligned_crop():
    maps = [torch.full_like(f, k) for k, f in enumerate(features())]
    inside = ROIS[:3]
    tf, aligned = (
        subnetwork(coordinates=mode)._crop(maps, inside, 1) for mode in ("tf", "aligned")
    )
    torch.testing.assert_close(tf[:, :, 1:3, 1:3], aligned[:, :, 1:3, 1:3])
    assert (tf[0] == 0).all() and (tf[2, :, 1:3, 1:3] == 1).all()


@pytest.mark.parametrize("coordinates", ["aligned", "tf"])
@pytest.mark.parametrize("training", [True, False])
def test_no_roi_gives_zero_gradients_and_leaves_the_statistics(coordinates, training):
    module = subnetwork(coordinates=coordinates).train(training)
    before = module.branches[0].norm.running_mean.clone()
    maps = features(requires_grad=True)
    out = module(maps, ROIS[:0])
    assert out.shape == (0, 5, 4, 4)
    out.sum().backward()
    assert all(not p.grad.any() for p in module.parameters())
    assert all(not f.grad.any() for f in maps)
    assert torch.equal(module.branches[0].norm.running_mean, before)


def test_counts_of_the_default_on_c4_and_fpn():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    fpn = MultiScaleSubnetwork(14, SCALES)
    assert count(fpn.fuse) == 1_769_728
    assert [branch.conv.weight.numel() for branch in fpn.branches] == [256 * 256] * 3
    c4 = build_roi_extractor(
        "MultiScaleSubnetwork", output_size=14, spatial_scales=SCALES[:1], in_channels=1024
    )
    assert count(c4) == 3 * (1024 * 256 + 512) + 1_769_728
    assert (c4.output_size, c4.out_channels, c4.factors) == ((14, 14), 256, (1, 2, 4))


@pytest.mark.parametrize(("sizes", "factors"), [((4,), (1,)), ((4, 12), (1, 3)), ((8, 8), (2, 2))])
def test_crop_sizes_are_free(sizes, factors):
    module = subnetwork(crop_sizes=sizes)
    assert module.factors == factors
    assert module(features(), ROIS).shape == (5, 5, 4, 4)


def test_output_need_not_be_square():
    assert subnetwork((3, 5))(features(), ROIS).shape == (5, 5, 3, 5)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [({"crop_sizes": (4, 6)}, r"\(4, 6\)"), ({"coordinates": "pixels"}, "'pixels'")],
)
def test_wrong_settings_are_named(kwargs, text):
    with pytest.raises(ValueError, match=text):
        subnetwork(**kwargs)


class Traceable(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, fine, coarse, rois):
        return self.module([fine, coarse], rois)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("traced_with", [1, 20])
@torch.no_grad()
def test_a_traced_module_serves_other_rois(traced_with, relu, monkeypatch):
    """Neither the pixels that are read nor the pieces are those of the example."""
    monkeypatch.setitem(multi_scale_subnetwork.AT_ONCE, "cpu", 400)
    module = subnetwork(relu=relu).eval()
    maps = features()
    example = (*maps, ROIS.repeat(traced_with, 1))
    traced = torch.jit.trace(Traceable(module).eval(), example, check_trace=False)
    for rois in (ROIS[:1], ROIS.flip(0).repeat(6, 1)):
        torch.testing.assert_close(traced(*maps, rois), ordinary(module, maps, rois))


@torch.no_grad()
def test_shapes_are_found_without_values():
    module = subnetwork().eval()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        maps, rois = [mode.from_tensor(m) for m in features()], mode.from_tensor(ROIS)
        assert module(maps, rois).shape == (5, 5, 4, 4)


@pytest.mark.parametrize("coordinates", ["aligned", "tf"])
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize(
    ("maps", "rois", "error", "text"),
    [
        (features(), ROIS[:, :4], ValueError, r"rois must be Tensor\[K, 5\]"),
        (features(), ROIS[0], ValueError, r"rois must be Tensor\[K, 5\]"),
        (features(), ROIS.long(), TypeError, "rois must be float32"),
        (features(), ROIS.tolist(), TypeError, "rois must be a dense Tensor"),
        (features()[:1], ROIS, ValueError, "spatial_scales must be a sequence of 1 numbers"),
        ([f[0] for f in features()], ROIS, ValueError, r"features\[0\] must be Tensor\[N, C"),
        ([f[..., :0] for f in features()], ROIS, ValueError, "with H, W > 0"),
        (features(channels=4), ROIS, ValueError, "features must be of 6 channels"),
    ],
)
def test_wrong_tensors_are_named(maps, rois, error, text, gradient, coordinates):
    module = subnetwork(coordinates=coordinates).eval()
    with torch.set_grad_enabled(gradient), pytest.raises(error, match=text):
        module(maps, rois)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("at_once", [1, 400, 2**22])
@torch.no_grad()
def test_inference_in_pieces_gives_what_one_piece_gives(at_once, relu, monkeypatch):
    monkeypatch.setitem(multi_scale_subnetwork.AT_ONCE, "cpu", at_once)
    module = subnetwork(relu=relu).eval()
    maps, rois = features(), ROIS.repeat(5, 1)
    torch.testing.assert_close(module(maps, rois), ordinary(module, maps, rois))
