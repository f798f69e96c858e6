"""Norms, rotary positions and gated activations in plain torch: the specification, and the path of last resort.

Rounding is Hugging Face's, operation by operation, so that bfloat16 rounds where its modules do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from parrot_compat.gpu.kernels import Activation, AttentionInputs, NormWeight, Positions
from parrot_compat.gpu.kernels.reference.attention import write_kv

__all__ = ["add_norm", "gated", "norm", "rotate"]


def norm(x: Tensor, by: NormWeight) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + by.eps)
    if by.rounds_first:
        wide = wide.to(x.dtype)
    return (wide * by.weight).to(x.dtype)


def add_norm(x: Tensor, y: Tensor, by: NormWeight) -> tuple[Tensor, Tensor]:
    total = x + y
    return total, norm(total, by)


def rotate(
    qkv: Tensor,
    heads: int,
    key_cache: Tensor,
    value_cache: Tensor,
    step: AttentionInputs,
    at: Positions,
    query_norm: NormWeight | None,
    key_norm: NormWeight | None,
) -> Tensor:
    kv_heads = key_cache.shape[1]
    query, key, value = torch.split(qkv, [heads, kv_heads, kv_heads], dim=1)
    query = query if query_norm is None else norm(query, query_norm)
    key = key if key_norm is None else norm(key, key_norm)
    cos = at.cos.index_select(0, at.positions)[:, None]
    sin = at.sin.index_select(0, at.positions)[:, None]
    write_kv(_rotated(key, cos, sin), value, key_cache, value_cache, step)
    return _rotated(query, cos, sin)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first numbers of each head are pairs (i, i + half), each turned by its angle; what is behind them stays."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    if activation == "silu":
        return F.silu(gate) * up
    return F.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none") * up
