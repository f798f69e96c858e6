"""Paged attention in plain torch: the specification of every attention kernel, and the CPU path.

It knows keys, values and where they lie; nothing of models, sequences or positions beyond lengths: row r's
last query is at position kv_lengths[r] - 1, its others directly before it.

The invariant: a row's result depends on that row alone, bit for bit. Rows are therefore computed one after
another: padding them to one length and masking changes the last bits (measured; it is slower, too, beyond a few
hundred keys). Gathering the pages of several rows at once was measured as well: no gain at 16 rows, 2-3 times
slower at 32, because so large a copy gets fresh memory at every layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from parrot_compat.gpu.kernels import AttentionInputs

__all__ = ["paged_attention", "write_kv"]


def write_kv(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, inputs: AttentionInputs) -> None:
    """Store the step's own keys and values in their slots. Comes before `paged_attention` of the same layer."""
    key_cache.index_copy_(0, inputs.slots, key)
    value_cache.index_copy_(0, inputs.slots, value)


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    inputs: AttentionInputs,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    """Causal attention of every row over its pages; `out` has the shape of `query`.

    `window`: a query at position p sees keys p - window + 1 .. p. `soft_cap`: scores become cap * tanh(score / cap).
    """
    out = torch.empty_like(query)
    for row, pages in enumerate(inputs.pages):
        first, last = inputs.query_starts[row], inputs.query_starts[row + 1]
        length = inputs.kv_lengths[row]
        # Keys that even the first query of the row cannot see any more need not be gathered: whole pages of them.
        hidden = 0 if window is None else max(0, length - (last - first) + 1 - window)
        skipped = hidden // inputs.page_size
        seen = pages[skipped : -(-length // inputs.page_size)]
        keys = _gather(key_cache, seen, inputs.page_size, length - skipped * inputs.page_size)
        values = _gather(value_cache, seen, inputs.page_size, length - skipped * inputs.page_size)
        out[first:last] = _row(query[first:last], keys, values, scale, window, soft_cap)
    return out


def _gather(cache: Tensor, pages: Tensor, page_size: int, tokens: int) -> Tensor:
    """The first `tokens` entries of `pages`, as [kv_heads, tokens, dim] (a view of the gathered copy)."""
    slots, kv_heads, dim = cache.shape
    whole = cache.view(slots // page_size, -1).index_select(0, pages)
    return whole.view(-1, kv_heads, dim)[:tokens].transpose(0, 1)


def _row(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, soft_cap: float | None
) -> Tensor:
    queries, heads, dim = query.shape
    kv_heads, length, _ = keys.shape
    group = heads // kv_heads
    if queries == 1 and soft_cap is None:
        # Folded GQA: the heads of one kv head are its queries, and all of them see every key in the window.
        start = 0 if window is None else max(0, length - window)
        folded = F.scaled_dot_product_attention(
            query.view(1, kv_heads, group, dim), keys[None, :, start:], values[None, :, start:], scale=scale
        )
        return folded.reshape(1, heads, dim)

    grouped = query.view(queries, kv_heads, group, dim).permute(1, 2, 0, 3)
    keys = keys[:, None].expand(-1, group, -1, -1)  # a view: no copy for the heads of a group
    values = values[:, None].expand(-1, group, -1, -1)
    plain_causal = queries == length and (window is None or length <= window)
    if soft_cap is not None:
        attended = _soft_capped(grouped, keys, values, scale, _visible(queries, length, window, query.device), soft_cap)
    elif plain_causal:
        attended = F.scaled_dot_product_attention(grouped, keys, values, is_causal=True, scale=scale)
    else:
        visible = _visible(queries, length, window, query.device)
        attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=visible, scale=scale)
    return attended.permute(2, 0, 1, 3).reshape(queries, heads, dim)


def _visible(queries: int, length: int, window: int | None, device: torch.device) -> Tensor:
    """[queries, length] true where a key may be seen. The queries are the last positions of the keys."""
    position = torch.arange(length - queries, length, device=device)[:, None]
    key = torch.arange(length, device=device)[None]
    visible = key <= position
    return visible if window is None else visible & (key > position - window)


def _soft_capped(query: Tensor, keys: Tensor, values: Tensor, scale: float, visible: Tensor, soft_cap: float) -> Tensor:
    scores = (query @ keys.transpose(-1, -2)) * scale
    scores = torch.tanh(scores / soft_cap) * soft_cap
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1, dtype=torch.float32)
    return weights.to(values.dtype) @ values
