"""Steps to attend in: rows over scattered pages, with shared fronts, in a cache whose other slots are poison."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.forest import ForestRow, SharedPrefix, find_shared
from parrot_compat.gpu.kernels.reference.attention import paged_attention


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpec:
    keys: int
    """Of its own, behind the shared front; its queries are the last ones."""
    queries: int = 1
    front: tuple[str, ...] = ()
    """Names of shared runs of pages, outermost first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    inputs: AttentionInputs
    shared: tuple[SharedPrefix, ...]
    query: Tensor
    keys: Tensor
    values: Tensor

    def on(self, device: str, dtype: torch.dtype) -> Case:
        inputs = AttentionInputs(
            page_size=self.inputs.page_size,
            slots=self.inputs.slots.to(device),
            query_starts=self.inputs.query_starts,
            kv_lengths=self.inputs.kv_lengths,
            pages=tuple(pages.to(device) for pages in self.inputs.pages),
        )
        moved = [tensor.to(device, dtype) for tensor in (self.query, self.keys, self.values)]
        return Case(inputs=inputs, shared=self.shared, query=moved[0], keys=moved[1], values=moved[2])

    def expected(self, *, window: int | None = None, soft_cap: float | None = None) -> Tensor:
        """By the reference kernel, one row after another, which knows nothing of strips or forests; in float64."""
        wide = [tensor.cpu().double() for tensor in (self.query, self.keys, self.values)]
        inputs = self.on("cpu", torch.float64).inputs
        return paged_attention(*wide, inputs, scale=self.scale, window=window, soft_cap=soft_cap)

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.query.shape[2])


def fresh_generator() -> torch.Generator:
    """Other numbers in every run; a failing test shows the seed."""
    seed = secrets.randbits(31)
    print(f"seed {seed}")
    return torch.Generator().manual_seed(seed)


def make_case(
    rows: Sequence[RowSpec],
    fronts: dict[str, int] | None = None,
    *,
    heads: tuple[int, int, int] = (4, 2, 16),
    page: int = 4,
    generator: torch.Generator | None = None,
) -> Case:
    """`fronts`: name → pages; `heads`: (heads, kv heads, dim)."""
    generator = generator or fresh_generator()
    query_heads, kv_heads, dim = heads
    fronts = fronts or {}
    needed = sum(fronts.values()) + sum(-(-row.keys // page) for row in rows)
    free = iter(torch.randperm(needed + 3, generator=generator).tolist())
    named = {name: [next(free) for _ in range(pages)] for name, pages in fronts.items()}
    keys, values = torch.full((2, (needed + 3) * page, kv_heads, dim), math.nan)
    starts, lengths, tables, slots = [0], [], [], []
    for row in rows:
        front = [number for name in row.front for number in named[name]]
        table = torch.tensor(front + [next(free) for _ in range(-(-row.keys // page))], dtype=torch.int64)
        length = len(front) * page + row.keys
        position = torch.arange(length)
        held = table[position // page] * page + position % page
        unwritten = held[keys[held, 0, 0].isnan()]
        keys[unwritten] = torch.randn(len(unwritten), kv_heads, dim, generator=generator)
        values[unwritten] = torch.randn(len(unwritten), kv_heads, dim, generator=generator)
        starts.append(starts[-1] + row.queries)
        lengths.append(length)
        tables.append(table)
        slots.append(held[length - row.queries :])
    inputs = AttentionInputs(
        page_size=page, slots=torch.cat(slots), query_starts=tuple(starts), kv_lengths=tuple(lengths),
        pages=tuple(tables),
    )  # fmt: skip
    return Case(
        inputs=inputs,
        shared=find_shared(forest_rows(inputs), page),
        query=torch.randn(starts[-1], query_heads, dim, generator=generator),
        keys=keys,
        values=values,
    )


def forest_rows(inputs: AttentionInputs) -> list[ForestRow]:
    queries = np.diff(inputs.query_starts)
    return [
        ForestRow(pages=pages.cpu().numpy(), shareable=int(length - count + 1))
        for pages, length, count in zip(inputs.pages, inputs.kv_lengths, queries, strict=True)
    ]
