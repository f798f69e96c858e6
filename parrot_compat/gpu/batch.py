"""The batch of one step, as the runner takes it: plain rows in, tensors out.

It knows nothing of sequences, contexts or scheduling.
The invariant: packed token i of a batch goes to slot `attention.slots[i]`, and no two tokens share a slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parrot_compat.core.call import ResolvedSampling, TokenLogprobs
from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.history import History
from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.forest import ForestRow
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.reading import Reading

__all__ = ["Batch", "BatchRow", "Draw", "Drawn"]

Drawn = int | TokenLogprobs
"""A drawn token: its id, or where its row asks for log probabilities, those with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How to draw the next token of a row."""

    sampling: ResolvedSampling
    index: int
    """Position of the drawn token in the output, from 0. With the seed it fixes the random number used,
    so that neighbours, preemption and replay never change a sampled text."""
    history: History | None = None
    """The row's tokens so far. Only a sampling with penalties needs them."""
    allowed: npt.NDArray[np.bool_] | None = field(default=None, compare=False)
    """By token: may it be drawn? `None`: all may. What may end a text of a wanted form is in it already."""


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
    group: str | None = None
    """Rows of one group may have a long prefix in common, which is then looked for."""
    prompt_tokens: int = 0
    """Of the whole sequence; rotary scalings that grow with the text ask for it."""
    reading: Reading | None = None
    """What somebody wants to know of this row's tokens, beside what is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step on the device: the rows' tokens one after another, without padding."""

    token_ids: Tensor
    """[tokens] int64"""
    positions: Tensor
    """[tokens] int64"""
    attention: AttentionInputs
    drawn: tuple[int, ...]
    """The rows that draw, in order."""
    draws: tuple[Draw, ...]
    """Theirs."""
    last_tokens: Tensor
    """[drawn rows] int64: the packed index of each drawing row's last token."""
    prompt_tokens: tuple[int, ...]
    """By row."""

    @classmethod
    def build(
        cls,
        rows: Sequence[BatchRow],
        page_size: int,
        device: torch.device | str = "cpu",
        sharing: Sharing | None = None,
    ) -> Batch:
        """`sharing`: whether prefixes are read together; `None`: never."""
        tokens: list[int] = []
        query_starts = [0]
        positions, slots, pages = [], [], []
        for number, row in enumerate(rows):
            end = row.start + len(row.tokens)
            if not row.tokens or len(row.pages) * page_size < end:
                raise EngineError(
                    f"row {number} of the batch has {len(row.tokens)} tokens from {row.start} on and "
                    f"{len(row.pages)} pages of {page_size}: it needs a token, and pages for all of them"
                )
            where = np.arange(row.start, end, dtype=np.int64)
            table = np.asarray(row.pages[: -(-end // page_size)], dtype=np.int64)
            tokens.extend(row.tokens)
            positions.append(where)
            slots.append(table[where // page_size] * page_size + where % page_size)
            pages.append(table)
            query_starts.append(len(tokens))
        # One transfer for everything; the pieces are views of it.
        sizes = [len(tokens), len(tokens), len(tokens), *(len(table) for table in pages)]
        packed = np.concatenate([np.asarray(tokens, dtype=np.int64), *positions, *slots, *pages])
        on_device = torch.from_numpy(packed).to(device)
        token_ids, position_ids, slot_ids, *tables = torch.split(on_device, sizes)
        drawn = tuple(number for number, row in enumerate(rows) if row.draw is not None)
        return cls(
            token_ids=token_ids,
            positions=position_ids,
            attention=AttentionInputs(
                page_size=page_size,
                slots=slot_ids,
                query_starts=tuple(query_starts),
                kv_lengths=tuple(row.start + len(row.tokens) for row in rows),
                pages=tuple(tables),
                shared=() if sharing is None else sharing.prefixes(_forest(rows, pages)),
            ),
            drawn=drawn,
            draws=tuple(row.draw for row in rows if row.draw is not None),
            prompt_tokens=tuple(row.prompt_tokens for row in rows),
            last_tokens=torch.tensor([query_starts[number + 1] - 1 for number in drawn], device=device),
        )


def _forest(rows: Sequence[BatchRow], tables: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> list[ForestRow]:
    # Pages that hold a token of this step belong to one row alone: nothing of them is shared.
    return [
        ForestRow(pages=table, shareable=row.start, group=row.group) for row, table in zip(rows, tables, strict=True)
    ]
