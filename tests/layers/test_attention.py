from __future__ import annotations

import math

import pytest
import torch

from segroi.layers import ContextBlock, GeneralizedAttention, NonLocal


def count(module):
    return sum(p.numel() for p in module.parameters())


def randomise(module, std=0.2):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module


def naive_generalized_attention(module, x):
    """The layer pixel by pixel, head by head, with one softmax over all keys."""
    out = torch.zeros_like(x)
    dim = module.query.out_channels // module.num_heads

    def position(linear, offset):
        quarter = module.embedding_dim // 4
        waves = [1000 ** (4 * k / module.embedding_dim) for k in range(quarter)]
        embedding = [math.sin(offset / f) for f in waves] + [math.cos(offset / f) for f in waves]
        return linear.weight @ torch.tensor(embedding, dtype=x.dtype) / 2**0.5

    for n in range(x.shape[0]):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                query = module.query.weight[:, :, 0, 0] @ x[n, :, i, j]
                keys = [
                    (a, b)
                    for a in range(0, x.shape[2], module.kv_stride)
                    for b in range(0, x.shape[3], module.kv_stride)
                ]
                heads = []
                for h in range(module.num_heads):
                    part = slice(h * dim, (h + 1) * dim)
                    energy = torch.stack(
                        [
                            query[part] @ position(module.position_x, j - b)[part]
                            + query[part] @ position(module.position_y, i - a)[part]
                            for a, b in keys
                        ]
                    )
                    values = [
                        (module.value.weight[:, :, 0, 0] @ x[n, :, a, b])[part] for a, b in keys
                    ]
                    heads.append((energy.softmax(0)[:, None] * torch.stack(values)).sum(0))
                mixed = module.proj.weight[:, :, 0, 0] @ torch.cat(heads) + module.proj.bias
                out[n, :, i, j] = module.gamma * mixed + x[n, :, i, j]
    return out


@pytest.mark.parametrize("size", [(7, 7), (4, 5)])
def test_generalized_attention_equals_a_naive_loop(size):
    torch.manual_seed(0)
    module = randomise(GeneralizedAttention(13, num_heads=3, embedding_dim=16).double())
    x = torch.randn(2, 13, *size, dtype=torch.float64)
    torch.testing.assert_close(module(x), naive_generalized_attention(module, x))


def naive_non_local(module, x):
    theta, phi, g = module.theta(x), module.phi(x), module.g(x)
    attended = torch.zeros_like(g)
    pixels = [(i, j) for i in range(x.shape[2]) for j in range(x.shape[3])]
    for n in range(x.shape[0]):
        for i, j in pixels:
            energy = torch.stack([theta[n, :, i, j] @ phi[n, :, a, b] for a, b in pixels])
            weights = (energy / theta.shape[1] ** 0.5).softmax(0)
            attended[n, :, i, j] = sum(w * g[n, :, a, b] for w, (a, b) in zip(weights, pixels))
    return x + module.out(attended)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_non_local_equals_a_naive_loop(kernel_size):
    torch.manual_seed(0)
    module = randomise(NonLocal(8, kernel_size).double())
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), naive_non_local(module, x))


def test_context_block_equals_its_formula():
    torch.manual_seed(0)
    module = randomise(ContextBlock(8).double())
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64)
    weights = torch.einsum("c,nchw->nhw", module.mask.weight[0, :, 0, 0], x) + module.mask.bias
    weights = weights.exp() / weights.exp().sum(dim=(1, 2), keepdim=True)
    context = torch.einsum("nhw,nchw->nc", weights, x)
    first, norm, _, last = module.transform
    hidden = context @ first.weight[:, :, 0, 0].T + first.bias
    hidden = (hidden - hidden.mean(1, True)) / (hidden.var(1, False, keepdim=True) + 1e-5).sqrt()
    hidden = (hidden * norm.weight.flatten() + norm.bias.flatten()).relu()
    added = hidden @ last.weight[:, :, 0, 0].T + last.bias
    torch.testing.assert_close(module(x), x + added[:, :, None, None])


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (GeneralizedAttention(256), 258_305),
        (NonLocal(256), 131_712),
        (NonLocal(256, 7), 6_423_168),
        (NonLocal(64, 7), 401_568),
    ],
    ids=["attention", "non_local1", "non_local7", "non_local7_after"],
)
def test_parameter_counts_of_the_papers(module, expected):
    assert count(module) == expected


@pytest.mark.parametrize("module", [GeneralizedAttention(12), NonLocal(12, 3), ContextBlock(12)])
@pytest.mark.parametrize("training", [True, False])
def test_identity_at_initialisation(module, training):
    x = torch.randn(3, 12, 7, 7)
    assert torch.equal(module.train(training)(x), x)


@pytest.mark.parametrize("module", [GeneralizedAttention(12), NonLocal(12, 3), ContextBlock(12)])
def test_no_rows_give_zero_gradients(module):
    x = torch.zeros(0, 12, 7, 7, requires_grad=True)
    out = module(x)
    out.sum().backward()
    assert out.shape == x.shape
    assert all(not p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("build", [GeneralizedAttention, NonLocal, ContextBlock])
def test_compiles_without_a_graph_break(build):
    torch.manual_seed(0)
    module = randomise(build(12))
    x = torch.randn(2, 12, 7, 7)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("build", [GeneralizedAttention, NonLocal])
def test_bfloat16_stays_near_float32(build):
    torch.manual_seed(0)
    module = randomise(build(12), std=0.1)
    x = torch.randn(2, 12, 7, 7)
    expected = module(x)
    torch.testing.assert_close(
        module.bfloat16()(x.bfloat16()).float(), expected, rtol=0.1, atol=0.1
    )
