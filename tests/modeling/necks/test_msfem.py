from __future__ import annotations

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork

from segroi.modeling.necks.msfem import MFPN, MSFEM, MFPNBlock

CHAINS = ["independent", "cascade", "tied"]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("num_branches", "chain", "expected"),
    [
        (4, "independent", 4_401_424),
        (4, "cascade", 2_631_184),
        (4, "tied", 1_451_024),
        (1, "independent", 664_336),
        (1, "cascade", 664_336),
        (1, "tied", 664_336),
        (2, "independent", 664_336 + 590_080 + 65_536),
        (2, "cascade", 664_336 + 590_080 + 65_536),
        (3, "independent", 664_336 + 3 * 590_080 + 2 * 65_536),
    ],
)
def test_parameters_of_one_level(num_branches, chain, expected):
    with torch.device("meta"):
        assert count(MSFEM(256, num_branches, chain)) == expected


def test_every_level_has_its_own_parameters():
    with torch.device("meta"):
        assert count(MFPN(5)) == 5 * 4_401_424


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("num_branches", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (7, 11), (8, 8)])
def test_shape_is_kept_and_every_parameter_learns(chain, num_branches, size):
    torch.manual_seed(0)
    module = MSFEM(8, num_branches, chain, reduction=2)
    features = torch.randn(2, 8, *size, requires_grad=True)
    output = module(features)
    output.sum().backward()
    assert output.shape == features.shape
    assert features.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_branch_i_is_strided_i_times():
    module = MSFEM(4, 4, reduction=2)
    shapes = []
    for conv in module.strided:
        conv.register_forward_hook(lambda _, __, output: shapes.append(output.shape[-1]))
    module(torch.randn(1, 4, 32, 32))
    assert shapes == [16, 16, 8, 16, 8, 4]


def test_tied_chain_iterates_one_conv():
    tied, cascade = MSFEM(4, 4, "tied", reduction=2), MSFEM(4, 4, "cascade", reduction=2)
    for conv in cascade.strided:
        conv.load_state_dict(tied.strided[0].state_dict())
    for name in ("fuse", "attention", "output"):
        getattr(cascade, name).load_state_dict(getattr(tied, name).state_dict())
    features = torch.randn(1, 4, 9, 13)
    torch.testing.assert_close(tied(features), cascade(features))


@pytest.mark.parametrize("num_branches", [1, 4])
def test_receptive_field_grows_with_the_branches(num_branches):
    torch.manual_seed(0)
    module = MSFEM(4, num_branches, reduction=2)
    torch.nn.init.zeros_(module.attention.expand.weight)  # the gate alone sees the whole map
    features = torch.randn(1, 4, 33, 33, requires_grad=True)
    module(features)[..., 16, 16].sum().backward()
    columns = features.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    width = (columns.max() - columns.min() + 1).item()
    assert width == 3 if num_branches == 1 else width > 20


def test_levels_are_refined_one_by_one():
    pyramid = MFPN(3, channels=4, num_branches=2, reduction=2)
    features = [torch.randn(1, 4, size, size) for size in (8, 4, 2)]
    for output, level, feature in zip(pyramid(features), pyramid.levels, features):
        torch.testing.assert_close(output, level(feature))


def test_as_extra_blocks_of_torchvision():
    block = MFPNBlock(4, channels=8, num_branches=2, reduction=2)
    fpn = FeaturePyramidNetwork([4, 8, 16], 8, extra_blocks=block)
    inputs = {f"c{i}": torch.randn(1, 4 * 2**i, 32 >> i, 32 >> i) for i in range(3)}
    outputs = fpn(inputs)
    assert list(outputs) == ["c0", "c1", "c2", "pool"]
    assert [o.shape[-1] for o in outputs.values()] == [32, 16, 8, 4]


@pytest.mark.parametrize("chain", CHAINS)
def test_export_with_dynamic_sizes(chain):
    module = MSFEM(4, 4, chain, reduction=2).eval()
    size = {2: torch.export.Dim("height", min=9), 3: torch.export.Dim("width", min=9)}
    program = torch.export.export(
        module, (torch.randn(1, 4, 16, 24),), dynamic_shapes={"features": size}
    )
    features = torch.randn(1, 4, 11, 37)
    torch.testing.assert_close(program.module()(features), module(features))


@pytest.mark.parametrize("kwargs", [{"num_branches": 0}, {"chain": "parallel"}])
def test_wrong_arguments(kwargs):
    with pytest.raises(ValueError, match="MSFEM"):
        MSFEM(8, **kwargs)


def test_wrong_number_of_levels():
    with pytest.raises(ValueError, match="expected 2 levels, got 1"):
        MFPN(2, channels=4, reduction=2)([torch.zeros(1, 4, 2, 2)])
