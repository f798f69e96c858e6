"""From the projection to the cache: head norms, rotary positions, and keys and values into their slots.

  head_norm(x) = x / sqrt(mean(x^2) + eps) * weight          where the model has one for queries or keys
  rotated(x)_i = x_i cos_i - x_(i+half) sin_i      rotated(x)_(i+half) = x_(i+half) cos_i + x_i sin_i      i < half
and numbers from 2 half on stay as they are. Computed in float32 and rounded after each operation, as
`reference/elementwise.py` does.

The invariant: one head of one token, one program. No two programs write the same slot, because no two tokens share one.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"
# Triton has no types; what follows `@triton.jit` is its own language.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from parrot_compat.gpu.kernels import AttentionInputs, NormWeight, Positions
from parrot_compat.gpu.kernels.strips import padded

__all__ = ["rotate", "rotate_and_store", "store_pairs", "write_kv"]


@triton.jit
def rotate_and_store(
    qkv, cos, sin, positions, slots, query_weight, key_weight, query, key_cache, value_cache, query_eps, key_eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, HALF: tl.constexpr,
    QUERY_NORM: tl.constexpr, KEY_NORM: tl.constexpr, ROUNDS_FIRST: tl.constexpr,
):  # fmt: skip
    """One program per (token, head of queries, keys and values).  grid [tokens * (HEADS + 2 KV_HEADS)].

    qkv [tokens, HEADS + 2 KV_HEADS, DIM]; cos, sin [positions known, HALF]; positions, slots [tokens] int64;
    *_weight [DIM] float32; query [tokens, HEADS, DIM] out; caches [slots, KV_HEADS, DIM]
    """
    token = (tl.program_id(0) // (HEADS + 2 * KV_HEADS)).to(tl.int64)
    head = tl.program_id(0) % (HEADS + 2 * KV_HEADS)
    dim = tl.arange(0, DIM_PADDED)
    is_dim = dim < DIM
    source = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * DIM
    x = tl.load(source + dim, mask=is_dim, other=0.0)
    if head >= HEADS + KV_HEADS:
        slot = tl.load(slots + token)
        tl.store(value_cache + (slot * KV_HEADS + head - HEADS - KV_HEADS) * DIM + dim, x, mask=is_dim)
        return
    # The number that each number is turned with: [DIM], by a second load, which is in the cache.
    other_dim = tl.where(dim < HALF, dim + HALF, tl.where(dim < 2 * HALF, dim - HALF, dim))
    other = tl.load(source + other_dim, mask=is_dim, other=0.0).to(tl.float32)
    x = x.to(tl.float32)
    if QUERY_NORM and head < HEADS:
        x, other = _normed(x, other, query_weight, query_eps, dim, other_dim, DIM, ROUNDS_FIRST, qkv.dtype.element_ty)
    if KEY_NORM and head >= HEADS:
        x, other = _normed(x, other, key_weight, key_eps, dim, other_dim, DIM, ROUNDS_FIRST, qkv.dtype.element_ty)
    position = tl.load(positions + token)
    angle = position * HALF + dim % HALF
    is_turned = dim < 2 * HALF
    along = x * tl.load(cos + angle, mask=is_turned, other=1.0).to(tl.float32)
    across = other * tl.load(sin + angle, mask=is_turned, other=0.0).to(tl.float32)
    along = along.to(qkv.dtype.element_ty).to(tl.float32)
    across = across.to(qkv.dtype.element_ty).to(tl.float32)
    turned = tl.where(dim < HALF, along - across, along + across).to(qkv.dtype.element_ty)
    if head < HEADS:
        tl.store(query + (token * HEADS + head) * DIM + dim, turned, mask=is_dim)
    else:
        slot = tl.load(slots + token)
        tl.store(key_cache + (slot * KV_HEADS + head - HEADS) * DIM + dim, turned, mask=is_dim)


@triton.jit
def _normed(
    x, other, weight, eps, dim, other_dim, DIM: tl.constexpr, ROUNDS_FIRST: tl.constexpr, element: tl.constexpr
):  # fmt: skip
    is_dim = dim < DIM
    scale = tl.math.rsqrt(tl.sum(x * x, 0) / DIM + eps)
    x, other = x * scale, other * scale
    if ROUNDS_FIRST:
        x, other = x.to(element).to(tl.float32), other.to(element).to(tl.float32)
    x *= tl.load(weight + dim, mask=is_dim, other=0.0)
    other *= tl.load(weight + other_dim, mask=is_dim, other=0.0)
    return x.to(element).to(tl.float32), other.to(element).to(tl.float32)


@triton.jit
def store_pairs(key, value, key_cache, value_cache, slots, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """One program per token: its key and value into its slot.  grid [tokens].

    key, value [tokens, WIDTH]; caches [slots, WIDTH], WIDTH = kv_heads * dim; slots [tokens] int64
    """
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    column = tl.arange(0, PADDED)
    is_column = column < WIDTH
    tl.store(key_cache + slot * WIDTH + column, tl.load(key + token * WIDTH + column, mask=is_column), mask=is_column)
    tl.store(
        value_cache + slot * WIDTH + column, tl.load(value + token * WIDTH + column, mask=is_column), mask=is_column
    )


def rotate(
    qkv: Tensor,
    heads: int,
    key_cache: Tensor,
    value_cache: Tensor,
    inputs: AttentionInputs,
    at: Positions,
    query_norm: NormWeight | None,
    key_norm: NormWeight | None,
) -> Tensor:
    """[tokens, heads + 2 kv_heads, dim] as projected → rotated queries; keys and values are in their slots."""
    tokens, both, dim = qkv.shape
    kv_heads = key_cache.shape[1]
    assert qkv.is_contiguous() and key_cache.is_contiguous() and value_cache.is_contiguous()
    assert both == heads + 2 * kv_heads and key_cache.shape[2] == dim and qkv.dtype == key_cache.dtype
    assert at.positions.dtype == inputs.slots.dtype == torch.int64 and at.cos.is_contiguous() and at.sin.is_contiguous()
    query = qkv.new_empty(tokens, heads, dim)
    some = query_norm or key_norm
    rotate_and_store[(tokens * both,)](
        qkv, at.cos, at.sin, at.positions, inputs.slots,
        at.cos if query_norm is None else query_norm.weight, at.cos if key_norm is None else key_norm.weight,
        query, key_cache, value_cache,
        0.0 if query_norm is None else query_norm.eps, 0.0 if key_norm is None else key_norm.eps,
        HEADS=heads, KV_HEADS=kv_heads, DIM=dim, DIM_PADDED=padded(dim), HALF=at.cos.shape[1],
        QUERY_NORM=query_norm is not None, KEY_NORM=key_norm is not None,
        ROUNDS_FIRST=some is None or some.rounds_first, num_warps=1,
    )  # fmt: skip
    return query


def write_kv(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, inputs: AttentionInputs) -> None:
    """Store the step's own keys and values in their slots. Comes before the attention of the same layer."""
    tokens, kv_heads, dim = key.shape
    width = kv_heads * dim
    assert key.is_contiguous() and value.is_contiguous() and key_cache.is_contiguous() and value_cache.is_contiguous()
    assert key.dtype == value.dtype == key_cache.dtype == value_cache.dtype and key_cache.shape[1:] == key.shape[1:]
    store_pairs[(tokens,)](key, value, key_cache, value_cache, inputs.slots, WIDTH=width, PADDED=padded(width))
