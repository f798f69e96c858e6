"""Attention strip by strip in plain torch: the specification of the GPU kernel's tables and of its reduce.

It does what a `StripPlan` says and nothing else: a strip that is missing, doubled or too long shows in the result.
Everything is computed in float32 (or wider, if the query is), the result has the query's dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from parrot_compat.gpu.kernels.strips import StripPlan

__all__ = ["merge_pair", "merge_partials", "strip_attention"]


def strip_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    plan: StripPlan,
    pages: Tensor,
    page_size: int,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(out [tokens, heads, dim], lse [tokens, heads] natural log).  `pages` [all rows' pages] packed."""
    wide = torch.promote_types(query.dtype, torch.float32)
    tokens, heads, dim = query.shape
    group = heads // key_cache.shape[1]
    out = torch.full((tokens, heads, dim), math.nan, dtype=wide)
    lse = torch.full((tokens, heads), math.nan, dtype=wide)
    partial = torch.full((plan.slots, heads, dim), math.nan, dtype=wide)
    partial_lse = torch.full((plan.slots, heads), math.nan, dtype=wide)
    lengths = torch.from_numpy(plan.lengths).long()
    starts = torch.from_numpy(plan.slot_starts).long()
    for table, is_direct in ((plan.direct, True), (plan.private, False), (plan.shared, False)):
        for first_member, members, first_page, first_key, keys, ordinal in table.tolist():
            who = torch.from_numpy(plan.members[first_member : first_member + members]).long()
            position = torch.arange(first_key, first_key + keys)
            slots = pages[first_page + position // page_size].long() * page_size + position % page_size
            k = key_cache[slots].to(wide).repeat_interleave(group, 1)
            v = value_cache[slots].to(wide).repeat_interleave(group, 1)
            scores = torch.einsum("qhd,khd->qhk", query[who].to(wide), k) * scale
            if soft_cap is not None:
                scores = soft_cap * torch.tanh(scores / soft_cap)
            visible = position < lengths[who][:, None]
            if window is not None:
                visible &= position >= lengths[who][:, None] - window
            scores = scores.masked_fill(~visible[:, None], -math.inf)
            strip_lse = torch.logsumexp(scores, -1)
            strip = torch.einsum("qhk,khd->qhd", torch.softmax(scores, -1).nan_to_num(0.0), v)
            if is_direct:
                out[who], lse[who] = strip, strip_lse
            else:
                partial[starts[who] + ordinal], partial_lse[starts[who] + ordinal] = strip, strip_lse
    for token in plan.split_tokens.tolist():
        mine = slice(int(starts[token]), int(starts[token + 1]))
        out[token], lse[token] = merge_partials(partial[mine], partial_lse[mine])
    return out.to(query.dtype), lse


def merge_partials(partial: Tensor, partial_lse: Tensor) -> tuple[Tensor, Tensor]:
    """[parts, heads, dim], [parts, heads] over disjoint keys → [heads, dim], [heads]. Who saw no key has -inf."""
    lse = torch.logsumexp(partial_lse, 0)
    return (torch.exp(partial_lse - lse)[..., None] * partial).sum(0), lse


def merge_pair(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Merge two partial attentions over disjoint keys.  out_* [rows, heads, dim]; lse_* [rows, heads] natural log."""
    lse = torch.logaddexp(lse_a, lse_b)
    weight_a, weight_b = torch.exp(lse_a - lse)[..., None], torch.exp(lse_b - lse)[..., None]
    return (weight_a * out_a.float() + weight_b * out_b.float()).to(out_a.dtype), lse
