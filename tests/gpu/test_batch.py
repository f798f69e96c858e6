"""Rows to tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.batch import Batch, BatchRow, PackedRows
from parrot_compat.gpu.drawing.draw import Draw

DRAW = Draw(sampling=ResolvedSampling(max_tokens=1), index=0)


def test_rows_are_packed_one_after_another_at_their_own_positions_and_slots() -> None:
    batch = Batch.build(
        [
            BatchRow(tokens=(7, 8, 9), start=3, pages=[5, 2], draw=DRAW),
            BatchRow(tokens=[1], start=0, pages=[9], draw=None),
            BatchRow(tokens=[4, 6], start=8, pages=[1, 3, 0, 11], draw=DRAW),
        ],
        page_size=4,
    )

    assert batch.token_ids.tolist() == [7, 8, 9, 1, 4, 6]
    assert batch.positions.tolist() == [3, 4, 5, 0, 8, 9]
    assert batch.attention.slots.tolist() == [5 * 4 + 3, 2 * 4, 2 * 4 + 1, 9 * 4, 0, 1]
    assert batch.attention.query_starts == (0, 3, 4, 6)
    assert batch.attention.kv_lengths == (6, 1, 10)
    assert [pages.tolist() for pages in batch.attention.pages] == [[5, 2], [9], [1, 3, 0]]
    assert batch.attention.page_size == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 99)), min_size=1, max_size=6))
def test_rows_that_only_draw_are_packed_as_they_are_beside_others(rows: list[tuple[int, int]]) -> None:
    drawing = [
        BatchRow(tokens=(token,), start=start, pages=[11 * row + 3 * page for page in range(12)], draw=DRAW)
        for row, (start, token) in enumerate(rows)
    ]
    other = BatchRow(tokens=(1, 2), start=0, pages=[999], draw=None)
    alone, beside = PackedRows.of(drawing, 4), PackedRows.of([*drawing, other], 4)
    count, pages = len(rows), len(alone.pages)
    ends = {"token_ids": count, "positions": count, "slots": count, "kv_lengths": count, "pages": pages}
    for name, end in (ends | {"query_starts": count + 1, "page_starts": count + 1}).items():
        assert getattr(alone, name).dtype == getattr(beside, name).dtype
        assert getattr(alone, name).tolist() == getattr(beside, name)[:end].tolist(), name
    assert (alone.drawn, alone.draws) == (beside.drawn, beside.draws)
    assert alone.is_decode and not beside.is_decode


@pytest.mark.parametrize("lengths", [(1,), (2,), (3,), (1, 1, 1), (5, 1, 1)])
def test_what_a_triton_kernel_reads_begins_at_16_bytes_whatever_the_number_of_tokens(lengths: tuple[int, ...]) -> None:
    """Triton compiles a kernel anew for a pointer that does not: in the middle of service, at an odd count."""
    rows = [
        BatchRow(tokens=[1] * length, start=0, pages=[2 * row, 2 * row + 1], draw=DRAW)
        for row, length in enumerate(lengths)
    ]
    batch = Batch.build(rows, page_size=4)
    for tensor in (batch.positions, batch.attention.slots):
        assert tensor.storage_offset() * tensor.element_size() % 16 == 0


def test_only_rows_that_draw_are_drawn_from_at_their_last_token() -> None:
    batch = Batch.build(
        [
            BatchRow(tokens=[1, 2], start=0, pages=[0], draw=None),
            BatchRow(tokens=[3, 4, 5], start=0, pages=[1], draw=DRAW),
        ],
        page_size=4,
    )

    assert batch.drawn == (1,)
    assert batch.draws == (DRAW,)
    assert batch.last_tokens.tolist() == [4]
    assert batch.last_tokens.dtype == torch.int64


def test_a_batch_that_draws_nothing_has_no_last_tokens() -> None:
    batch = Batch.build([BatchRow(tokens=[1], start=0, pages=[0], draw=None)], page_size=4)

    assert batch.drawn == ()
    assert batch.last_tokens.numel() == 0


@pytest.mark.parametrize(
    "row",
    [
        BatchRow(tokens=[], start=4, pages=[0, 1], draw=None),
        BatchRow(tokens=[1, 2], start=7, pages=[0, 1], draw=None),
    ],
    ids=["no tokens", "too few pages"],
)
def test_a_row_without_tokens_or_pages_for_them_is_an_error_that_names_it(row: BatchRow) -> None:
    good = BatchRow(tokens=[1], start=0, pages=[2], draw=None)

    with pytest.raises(EngineError, match="row 1 of the batch"):
        Batch.build([good, row], page_size=4)
