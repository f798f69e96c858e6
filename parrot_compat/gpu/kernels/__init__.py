"""Contracts of the kernels; `reference` (float32 torch, the specification and the CPU path) implements them.

Layouts (row-major, contiguous):
  query, out   [tokens, heads, dim]        packed: the rows of a step one after another, no padding
  key, value   [tokens, kv_heads, dim]     of the step's own tokens
  cache        [slots, kv_heads, dim]      one layer's keys or values; slot = page * page_size + offset
`heads` is a multiple of `kv_heads` (GQA); head h reads kv head h // (heads // kv_heads).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["AttentionInputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionInputs:
    """Where the rows of one step lie in the packed tokens and in the KV pages. Same for all layers."""

    page_size: int
    slots: Tensor
    """[tokens] int64: the slot that each token's key and value are written to."""
    query_starts: tuple[int, ...]
    """rows + 1 offsets into the packed tokens: row r has tokens query_starts[r] .. query_starts[r+1]-1."""
    kv_lengths: tuple[int, ...]
    """rows: keys that row r attends to, the step's own tokens included."""
    pages: tuple[Tensor, ...]
    """rows x [pages of the row] int64, covering at least kv_lengths[r] slots."""
