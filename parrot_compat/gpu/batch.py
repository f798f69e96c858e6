"""The batch of one step, as the runner takes it: plain rows in, tensors out.

It knows nothing of sequences, contexts or scheduling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parrot_compat.core.call import ResolvedSampling

__all__ = ["BatchRow", "Draw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How to draw the next token of a row."""

    sampling: ResolvedSampling
    index: int
    """Position of the drawn token in the output, from 0. With the seed it fixes the random number used,
    so that neighbours, preemption and replay never change a sampled text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One sequence's part of a step: `tokens` are computed at positions start .. start+len(tokens)-1."""

    tokens: Sequence[int]
    start: int
    """Tokens of the sequence that are in the KV pages already; also the position of tokens[0]."""
    pages: Sequence[int]
    """Page ids of the sequence in order; they cover at least start + len(tokens) slots."""
    draw: Draw | None
    """None: the prompt is not complete after this step (or it is a Fill), so nothing is drawn."""
