"""Generalized attention with the "query content and relative position" term."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GeneralizedAttention(nn.Module):
    """Spatial self-attention by query content and relative position: term E2, written '0100'.

    GRoIE's post-processing; X. Zhu et al., "An Empirical Study of Spatial Attention Mechanisms in
    Deep Networks", eq. (4). With query pixel (i, j) and key cell (m, n), `energy = <q_ij, px_jn> +
    <q_ij, py_im>`, where px and py are learned projections of the sinusoidal embedding of the
    offset. `gamma` starts at 0, so the layer starts as the identity.

    Args:
        channels: channels of input and output.
        num_heads: heads; each has `channels // num_heads` channels.
        kv_stride: every how many cells a key stands.
        embedding_dim: size of the position embedding, both axes together.
        wave_length: base of the embedding's frequencies.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 6,
        kv_stride: int = 2,
        embedding_dim: int = 256,
        wave_length: float = 1000.0,
    ) -> None:
        super().__init__()
        inner = channels // num_heads * num_heads
        self.num_heads = num_heads
        self.kv_stride = kv_stride
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.position_x = nn.Linear(embedding_dim // 2, inner, bias=False)
        self.position_y = nn.Linear(embedding_dim // 2, inner, bias=False)
        self.proj = nn.Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.embedding_dim = embedding_dim
        self.wave_length = wave_length
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for layer in (self.query, self.value, self.position_x, self.position_y, self.proj):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(self.proj.bias)

    def _embed_offsets(self, size: int, like: Tensor) -> Tensor:
        """Sines and cosines of query minus key coordinate, [queries, keys, embedding_dim / 2]."""
        # At least float32: half precision cannot tell the high frequencies apart.
        dtype = torch.promote_types(like.dtype, torch.float32)
        cells = torch.arange(size, device=like.device, dtype=dtype)
        exponents = torch.arange(self.embedding_dim // 4, device=like.device, dtype=dtype)
        wavelengths = self.wave_length ** (exponents * (4 / self.embedding_dim))
        angles = (cells[:, None] - cells[:: self.kv_stride])[..., None] / wavelengths
        return torch.cat((angles.sin(), angles.cos()), dim=-1).to(like.dtype)

    def _axis_weights(self, query: Tensor, position: nn.Linear, axis: str) -> Tensor:
        """Softmax over the key coordinates of one axis, [N, heads, H, W, keys]."""
        size = query.shape[3 if axis == "y" else 4]
        keys = position(self._embed_offsets(size, position.weight)) / math.sqrt(2)
        keys = keys.unflatten(-1, (self.num_heads, -1))
        return torch.einsum(f"nhdyx,{axis}khd->nhyxk", query, keys).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the attended values to the input.

        Args:
            x: Tensor[N, C, H, W].

        Returns:
            Tensor[N, C, H, W].
        """
        query = self.query(x).unflatten(1, (self.num_heads, -1))
        value = self.value(x[:, :, :: self.kv_stride, :: self.kv_stride])
        value = value.unflatten(1, (self.num_heads, -1)).flatten(3)
        # The energy is a sum of a term per axis, so its softmax is the product of two softmaxes.
        weights_y = self._axis_weights(query, self.position_y, "y")
        weights_x = self._axis_weights(query, self.position_x, "x")
        weights = (weights_y[..., :, None] * weights_x[..., None, :]).flatten(4).flatten(2, 3)
        attended = torch.einsum("nhqk,nhdk->nhdq", weights, value)
        attended = attended.flatten(1, 2).unflatten(-1, x.shape[-2:])
        return self.gamma * self.proj(attended) + x
