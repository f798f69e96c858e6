"""The reference kernel against attention written out in full, in float64, one query at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.reference.attention import paged_attention, write_kv

PAGE = 4
PAGES = 64


def make_inputs(rows: list[tuple[int, int]], seed: int = 0, pages: int = PAGES) -> AttentionInputs:
    """`rows`: (keys already there, new tokens). Pages are scattered and belong to one row each."""
    free = torch.randperm(pages, generator=torch.Generator().manual_seed(seed))
    tables, slots, starts = [], [], [0]
    for before, new in rows:
        needed = -(-(before + new) // PAGE)
        mine, free = free[:needed], free[needed:]
        position = torch.arange(before, before + new)
        slots.append(mine[position // PAGE] * PAGE + position % PAGE)
        tables.append(mine)
        starts.append(starts[-1] + new)
    return AttentionInputs(
        page_size=PAGE,
        slots=torch.cat(slots),
        query_starts=tuple(starts),
        kv_lengths=tuple(before + new for before, new in rows),
        pages=tuple(tables),
    )


def written_out(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    inputs: AttentionInputs,
    scale: float,
    window: int | None,
    cap: float | None,
) -> Tensor:
    heads, kv_heads = query.shape[1], keys.shape[1]
    out = torch.zeros_like(query, dtype=torch.float64)
    for row, pages in enumerate(inputs.pages):
        first, last = inputs.query_starts[row], inputs.query_starts[row + 1]
        for token in range(first, last):
            position = inputs.kv_lengths[row] - (last - token)
            visible = [p for p in range(position + 1) if window is None or p > position - window]
            slots = [int(pages[p // PAGE]) * PAGE + p % PAGE for p in visible]
            for head in range(heads):
                kv = head // (heads // kv_heads)
                scores = keys[slots, kv].double() @ query[token, head].double() * scale
                if cap is not None:
                    scores = cap * torch.tanh(scores / cap)
                out[token, head] = torch.softmax(scores, -1) @ values[slots, kv].double()
    return out


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 25), st.integers(1, 9)), min_size=1, max_size=5),
    shape=st.sampled_from([(4, 2, 8), (4, 4, 16), (6, 1, 8)]),
    window=st.sampled_from([None, 1, 3, 8, 100]),
    cap=st.sampled_from([None, 0.5, 30.0]),
)
def test_the_kernel_is_attention_written_out(
    rows: list[tuple[int, int]], shape: tuple[int, int, int], window: int | None, cap: float | None
) -> None:
    heads, kv_heads, dim = shape
    torch.manual_seed(0)
    inputs = make_inputs(rows)
    tokens = inputs.query_starts[-1]
    # Slots nobody owns hold huge numbers: reading one would show.
    keys, values = torch.full((2, PAGES * PAGE, kv_heads, dim), 1e6)
    for row, pages in enumerate(inputs.pages):
        owned = (pages[:, None] * PAGE + torch.arange(PAGE)).view(-1)[: inputs.kv_lengths[row]]
        keys[owned], values[owned] = torch.randn(2, len(owned), kv_heads, dim)
    query = torch.randn(tokens, heads, dim)
    new_keys, new_values = torch.randn(2, tokens, kv_heads, dim)

    write_kv(new_keys, new_values, keys, values, inputs)
    out = paged_attention(query, keys, values, inputs, scale=1 / math.sqrt(dim), window=window, soft_cap=cap)

    assert torch.equal(keys[inputs.slots], new_keys) and torch.equal(values[inputs.slots], new_values)
    expected = written_out(query, keys, values, inputs, 1 / math.sqrt(dim), window, cap)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_bits_whatever_is_beside_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows = [(0, 9), (13, 1), (22, 1), (8, 5), (0, 1), (40, 1)]
    inputs = make_inputs(rows)
    keys, values = torch.randn(2, PAGES * PAGE, 2, 16).to(dtype)
    query = torch.randn(inputs.query_starts[-1], 4, 16).to(dtype)
    together = paged_attention(query, keys, values, inputs, scale=0.25)

    for row in range(len(rows)):
        first, last = inputs.query_starts[row], inputs.query_starts[row + 1]
        alone = replace(
            inputs,
            slots=inputs.slots[first:last],
            query_starts=(0, last - first),
            kv_lengths=inputs.kv_lengths[row : row + 1],
            pages=inputs.pages[row : row + 1],
        )
        assert torch.equal(paged_attention(query[first:last], keys, values, alone, scale=0.25), together[first:last])


def test_extra_pages_behind_the_keys_are_not_read() -> None:
    torch.manual_seed(0)
    inputs = make_inputs([(5, 2)])
    longer = replace(inputs, pages=(torch.cat([inputs.pages[0], torch.tensor([63, 62])]),))
    keys, values = torch.randn(2, PAGES * PAGE, 2, 8)
    query = torch.randn(2, 4, 8)

    assert torch.equal(
        paged_attention(query, keys, values, longer, scale=0.3), paged_attention(query, keys, values, inputs, scale=0.3)
    )
