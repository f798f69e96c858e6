"""How many bytes keys, values and steps take on a device: what `config.resolve` divides its memory by.

It knows a checkpoint's facts, and neither torch nor a device. The invariant: more tokens, rows or context never count
for less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parrot_compat.gpu.config import CheckpointFacts

__all__ = ["DTYPE_BYTES", "most_rows", "most_tokens", "spare_bytes", "step_bytes", "token_bytes"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MANY_ROWS = 128
"""From so many rows on a CUDA device sorts each by itself; fewer are sorted as one, the row beside each index."""
SORTED_BYTES, SORTED_BYTES_OF_MANY = 54, 42
"""Of each score while rows are drawn from with top-p, the greediest of filters: what torch's sort holds (SortStable.cu:
keys and indices, both twice, and as much again to pass them through), and the logits and scores beside it."""
SPARE_BYTES = 512 << 20
"""Most that is kept for what is no tensor of a step: CUDA graphs, partials of attention, tables of positions,
libraries, holes between what is allocated."""
SPARE_SHARE = 16
"""A small device keeps one part in so many."""


def token_bytes(checkpoint: CheckpointFacts, dtype: str) -> int:
    """Of one token's keys and values in all layers."""
    return 2 * checkpoint.layers * checkpoint.kv_heads * checkpoint.head_dim * DTYPE_BYTES[dtype]


def step_bytes(checkpoint: CheckpointFacts, dtype: str, *, tokens: int, rows: int, context: int) -> int:
    """What a step holds at most beside weights and KV: the tokens' states, the two halves of an MLP and their product,
    and where rows are drawn from, what that takes. `context`: of its longest text."""
    size = DTYPE_BYTES[dtype]
    each = (4 * checkpoint.hidden_size + 3 * checkpoint.intermediate_size) * size
    if not checkpoint.has_fast_decoder:
        # First a mask of every token's keys, as bits and twice as numbers (torch pads them), then the logits of all.
        each += max(context * (2 * size + 1), checkpoint.vocab_size * size)
    return tokens * each + _drawing_bytes(checkpoint, rows)


def _drawing_bytes(checkpoint: CheckpointFacts, rows: int) -> int:
    return checkpoint.vocab_size * max(min(rows, MANY_ROWS - 1) * SORTED_BYTES, rows * SORTED_BYTES_OF_MANY)


def spare_bytes(free: int) -> int:
    """Of the `free` bytes, those that neither KV nor a step's tensors may take."""
    return min(SPARE_BYTES, free // SPARE_SHARE)


def most_rows(checkpoint: CheckpointFacts, free: int) -> int:
    """As many as a device decodes well, less where drawing from so many would take a quarter of its `free` bytes."""
    rows = 256
    while rows > 16 and 4 * _drawing_bytes(checkpoint, rows) > free:
        rows //= 2
    return rows


def most_tokens(checkpoint: CheckpointFacts, dtype: str, free: int, *, context: int) -> int:
    """As many as keep a device busy, less where a step of so many would take a quarter of its `free` bytes."""
    tokens = 8192
    while tokens > 512 and 4 * step_bytes(checkpoint, dtype, tokens=tokens, rows=0, context=context) > free:
        tokens //= 2
    return tokens
