"""Attention of one layer over the paged KV: store the step's keys and values, then attend.

It knows layers and the KV storage, and chooses the kernel for the device; nothing of models or families.
The invariant: keys and values of a step are in their slots before any row of that layer reads them.
"""

from __future__ import annotations

from torch import Tensor

from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.reference.attention import paged_attention, write_kv
from parrot_compat.gpu.kv.storage import KvStorage

__all__ = ["attend"]


def attend(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    storage: KvStorage,
    inputs: AttentionInputs,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    """`query` [tokens, heads, dim], `key` and `value` [tokens, kv_heads, dim], rotary positions applied already."""
    keys, values = storage.keys[layer], storage.values[layer]
    write_kv(key, value, keys, values, inputs)
    return paged_attention(query, keys, values, inputs, scale=scale, window=window, soft_cap=soft_cap)
