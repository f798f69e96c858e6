"""The batch of one step, as the runner takes it: plain rows in, tensors out.

It knows nothing of sequences, contexts or scheduling.
The invariant: packed token i of a batch goes to slot `attention.slots[i]`, and no two tokens share a slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

import numpy as np
import torch
from torch import Tensor

from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.forest import ForestRow, SharedPrefix
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kv.page_list import PageList
from parrot_compat.gpu.to_device import moved
from parrot_compat.gpu.wanted import Wanted

__all__ = ["Batch", "BatchRow", "PackedRows"]

Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


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
    prompt_tokens: int = 0
    """Of the whole sequence; rotary scalings that grow with the text ask for it."""
    wanted: Wanted | None = None
    """What somebody wants to know of this row's tokens, beside what is drawn."""
    drawn_by: int | None = None
    """Its one token is what that row of the step before draws, which need not be known yet; `tokens` has a stand-in."""


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
        return PackedRows.of(rows, page_size, sharing).to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """The rows of a step one after another, on the host: what `Batch` has on the device. All arrays are int64."""

    page_size: int
    token_ids: Ids
    positions: Ids
    slots: Ids
    """[tokens]"""
    pages: Ids
    """[all pages] the page lists of the rows, packed."""
    query_starts: Ids
    page_starts: Ids
    """[rows + 1]"""
    kv_lengths: Ids
    """[rows]"""
    shared: tuple[SharedPrefix, ...]
    drawn: tuple[int, ...]
    draws: tuple[Draw, ...]
    prompt_tokens: tuple[int, ...]

    @classmethod
    def of(cls, rows: Sequence[BatchRow], page_size: int, sharing: Sharing | None = None) -> PackedRows:
        if all(len(row.tokens) == 1 and row.draw is not None for row in rows):
            return cls._of_decoding(rows, page_size, sharing)
        starts = np.array([row.start for row in rows], dtype=np.int64)
        counts = np.array([len(row.tokens) for row in rows], dtype=np.int64)
        ends = starts + counts
        covering = -(-ends // page_size)
        _check(rows, covering.tolist(), page_size)
        query_starts, page_starts = _starts(counts), _starts(covering)
        pages = _packed_pages(rows, covering.tolist())
        positions = np.arange(query_starts[-1]) + np.repeat(starts - query_starts[:-1], counts)
        in_list = np.repeat(page_starts[:-1], counts) + positions // page_size
        return cls(
            page_size=page_size,
            token_ids=np.fromiter(
                chain.from_iterable(row.tokens for row in rows), dtype=np.int64, count=int(query_starts[-1])
            ),
            positions=positions,
            slots=pages[in_list] * page_size + positions % page_size,
            pages=pages,
            query_starts=query_starts,
            page_starts=page_starts,
            kv_lengths=ends,
            shared=_shared(rows, pages, page_starts, sharing),
            drawn=tuple(number for number, row in enumerate(rows) if row.draw is not None),
            draws=tuple(row.draw for row in rows if row.draw is not None),
            prompt_tokens=tuple(row.prompt_tokens for row in rows),
        )

    @classmethod
    def _of_decoding(cls, rows: Sequence[BatchRow], page_size: int, sharing: Sharing | None) -> PackedRows:
        """The same for rows of one token that all draw. Plain Python: an operation of numpy costs as much for sixteen
        numbers as for a thousand."""
        starts = [row.start for row in rows]
        covering = [start // page_size + 1 for start in starts]
        _check(rows, covering, page_size)
        pages = _packed_pages(rows, covering)
        page_starts = np.array([0, *accumulate(covering)], dtype=np.int64)
        slots = [row.pages[row.start // page_size] * page_size + row.start % page_size for row in rows]
        token_ids, positions, into = np.array([[row.tokens[0] for row in rows], starts, slots], dtype=np.int64)
        return cls(
            page_size=page_size,
            token_ids=token_ids,
            positions=positions,
            slots=into,
            pages=pages,
            query_starts=np.arange(len(rows) + 1, dtype=np.int64),
            page_starts=page_starts,
            kv_lengths=positions + 1,
            shared=_shared(rows, pages, page_starts, sharing),
            drawn=tuple(range(len(rows))),
            draws=tuple(row.draw for row in rows if row.draw is not None),
            prompt_tokens=tuple(row.prompt_tokens for row in rows),
        )

    @property
    def is_decode(self) -> bool:
        """Every row has one token and draws."""
        return len(self.token_ids) == len(self.kv_lengths) == len(self.drawn)

    def to(self, device: torch.device | str) -> Batch:
        tokens, rows = len(self.token_ids), len(self.kv_lengths)
        last = self.query_starts[1:][list(self.drawn)] - 1
        # One transfer for everything; the pieces are views of it. Positions and slots, which a Triton kernel reads,
        # begin at 16 bytes however many tokens there are: it would be compiled anew for pointers that do not.
        packed = np.concatenate([self.positions, self.token_ids, self.slots, last, self.pages])
        on_device = moved(torch.from_numpy(packed), device)
        counts = [end - start for start, end in pairwise(self.page_starts.tolist())]
        positions, token_ids, slots, last_tokens, *tables = torch.split(
            on_device, [tokens, tokens, tokens, len(last), *counts]
        )
        assert len(tables) == rows
        return Batch(
            token_ids=token_ids,
            positions=positions,
            attention=AttentionInputs(
                page_size=self.page_size,
                slots=slots,
                query_starts=tuple(self.query_starts.tolist()),
                kv_lengths=tuple(self.kv_lengths.tolist()),
                pages=tuple(tables),
                shared=self.shared,
            ),
            drawn=self.drawn,
            draws=self.draws,
            prompt_tokens=self.prompt_tokens,
            last_tokens=last_tokens,
        )


def _check(rows: Sequence[BatchRow], covering: Sequence[int], page_size: int) -> None:
    for number, (row, pages) in enumerate(zip(rows, covering, strict=True)):
        if not row.tokens or len(row.pages) < pages:
            raise EngineError(
                f"row {number} of the batch has {len(row.tokens)} tokens from {row.start} on and "
                f"{len(row.pages)} pages of {page_size}: it needs a token, and pages for all of them"
            )


def _packed_pages(rows: Sequence[BatchRow], covering: Sequence[int]) -> Ids:
    """The first `covering` pages of each row. What a `PageList` has as numbers already is not turned into them again:
    of a long text that would cost more than the rest of a batch."""
    lists = [
        row.pages.array[:count] if isinstance(row.pages, PageList) else np.array(row.pages[:count], dtype=np.int64)
        for row, count in zip(rows, covering, strict=True)
    ]
    return np.concatenate(lists) if lists else np.empty(0, dtype=np.int64)


def _starts(counts: Ids) -> Ids:
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _shared(
    rows: Sequence[BatchRow], pages: Ids, page_starts: Ids, sharing: Sharing | None
) -> tuple[SharedPrefix, ...]:
    if sharing is None:
        return ()
    bounds = page_starts.tolist()
    if len(set(pages[bounds[:-1]].tolist())) == len(rows):
        return ()  # all begin differently
    # Pages that hold a token of this step belong to one row alone: nothing of them is shared.
    return sharing.prefixes(
        [
            ForestRow(pages=pages[first:end], shareable=row.start, queries=len(row.tokens))
            for row, (first, end) in zip(rows, pairwise(bounds), strict=True)
        ]
    )
