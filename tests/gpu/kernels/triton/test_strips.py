"""Cutting a step into strips: every query meets each of its keys once, and alone or in company in the same order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.gpu.kernels.forest import SharedPrefix
from parrot_compat.gpu.kernels.reference.forest import merge_pair, strip_attention
from parrot_compat.gpu.kernels.strips import HeadShape, StripPlan, Tiling, plan_decode, plan_strips, row_shapes
from parrot_compat.gpu.kernels.triton.tiles import tiling

from .cases import Case, RowSpec, make_case

TILING = Tiling(direct_queries=3, private_queries=2, shared_queries=4, split_keys=8, shared_strips=3)


def plan_of(case: Case, tiling: Tiling = TILING, is_shared: bool = True) -> StripPlan:
    return plan_strips(row_shapes(case.inputs), case.inputs.page_size, tiling, case.shared if is_shared else ())


def met(case: Case, plan: StripPlan) -> Counter[tuple[int, int, int]]:
    """(token, position, slot) → in how many strips."""
    pages = torch.cat(case.inputs.pages).numpy()
    page, found = case.inputs.page_size, Counter[tuple[int, int, int]]()
    for table in (plan.direct, plan.private, plan.shared):
        for first_member, members, first_page, first_key, keys, _ in table.tolist():
            for token in plan.members[first_member : first_member + members].tolist():
                for position in range(first_key, first_key + keys):
                    if position < plan.lengths[token]:
                        slot = int(pages[first_page + position // page]) * page + position % page
                        found[token, position, slot] += 1
    return found


def due(case: Case) -> Counter[tuple[int, int, int]]:
    page, found = case.inputs.page_size, Counter[tuple[int, int, int]]()
    for shape, pages in zip(row_shapes(case.inputs), case.inputs.pages, strict=True):
        for query in range(shape.queries):
            for position in range(shape.keys - shape.queries + query + 1):
                slot = int(pages[position // page]) * page + position % page
                found[shape.first_query + query, position, slot] += 1
    return found


specs = st.lists(
    st.builds(
        lambda keys, queries, front: RowSpec(keys=max(keys, queries), queries=queries, front=tuple("abc"[:front])),
        st.integers(0, 30), st.integers(1, 8), st.integers(0, 3),
    ),
    min_size=1, max_size=7,
)  # fmt: skip
tilings = st.builds(
    Tiling, direct_queries=st.integers(1, 5), private_queries=st.integers(1, 4), shared_queries=st.integers(1, 6),
    split_keys=st.sampled_from([3, 8, 64]), shared_strips=st.integers(1, 9),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(specs, tilings, st.booleans())
def test_every_query_meets_each_key_that_it_sees_once(rows: list[RowSpec], tiling: Tiling, is_shared: bool) -> None:
    case = make_case(rows, {"a": 3, "b": 1, "c": 5})
    plan = plan_of(case, tiling, is_shared)
    assert met(case, plan) == due(case)
    slots = Counter[int]()
    for table in (plan.private, plan.shared):
        for first_member, members, *_, ordinal in table.tolist():
            slots.update(int(plan.slot_starts[token]) + ordinal for token in plan.members[first_member:][:members])
    assert slots == Counter(range(plan.slots)), "every partial is written by exactly one strip"
    assert set(np.flatnonzero(np.diff(plan.slot_starts)).tolist()) == set(plan.split_tokens.tolist())


@settings(max_examples=60, deadline=None)
@given(specs, tilings, st.sampled_from([None, 1, 5, 100]), st.sampled_from([None, 2.0]))
def test_strips_and_their_merge_are_the_attention_of_the_reference(
    rows: list[RowSpec], tiling: Tiling, window: int | None, soft_cap: float | None
) -> None:
    case = make_case(rows, {"a": 2, "b": 1, "c": 3})
    out, lse = strip_attention(
        case.query, case.keys, case.values, plan_of(case, tiling), torch.cat(case.inputs.pages),
        case.inputs.page_size, scale=case.scale, window=window, soft_cap=soft_cap,
    )  # fmt: skip
    assert lse.isfinite().all()
    torch.testing.assert_close(out.double(), case.expected(window=window, soft_cap=soft_cap), rtol=1e-4, atol=1e-5)


def test_a_row_is_cut_in_the_same_way_whatever_is_beside_it() -> None:
    rows = [RowSpec(keys=30), RowSpec(keys=5, queries=5), RowSpec(keys=17, queries=2), RowSpec(keys=1)]
    together = plan_of(make_case(rows))
    for number, row in enumerate(rows):
        alone = plan_of(make_case([row]))
        first = sum(other.queries for other in rows[:number])
        for kind in ("direct", "private"):
            mine = [
                (line[0] - first, line[1], *line[3:])
                for line in getattr(together, kind).tolist()
                if first <= line[0] < first + row.queries
            ]
            assert mine == [(line[0], line[1], *line[3:]) for line in getattr(alone, kind).tolist()]


def test_a_row_with_many_queries_keeps_out_and_the_others_share_on() -> None:
    case = make_case([RowSpec(keys=1, front=("a",)), RowSpec(keys=9, queries=9, front=("a",)),
                      RowSpec(keys=2, front=("a",))], {"a": 4})  # fmt: skip
    plan = plan_of(case)
    assert {int(token) for token in plan.members[len(plan.lengths) :]} == {0, 10}
    assert met(case, plan) == due(case)


LLAMA = tiling(HeadShape(heads=32, kv_heads=8, dim=128, element_bytes=2), processors=132)


@pytest.mark.parametrize(
    ("rows", "front", "own", "times"), [(64, 8192, 512, Fraction(8, 5)), (128, 32_768, 512, Fraction(10, 3))]
)
def test_a_prefix_is_loaded_once_for_every_tile_of_the_rows_that_share_it(
    rows: int, front: int, own: int, times: Fraction
) -> None:
    page = 16
    prefix = SharedPrefix(rows=tuple(range(rows)), first_page=0, end_page=front // page)
    lengths = np.full(rows, front + own)
    together = plan_decode(lengths, np.arange(rows) * ((front + own) // page), page, LLAMA, [prefix])

    assert LLAMA.shared_queries == 16, "queries of a tile of 64 rows, where 4 heads read one kv head"
    assert together.unique_keys == front + rows * own
    assert together.loaded_keys == front * rows // 16 + rows * own
    assert Fraction(together.loaded_keys, together.unique_keys) == times

    apart = plan_decode(lengths, np.arange(rows) * ((front + own) // page), page, LLAMA)
    assert apart.loaded_keys == apart.unique_keys == rows * (front + own)


def test_every_tile_of_a_prompt_loads_what_it_sees_and_the_last_sees_all() -> None:
    plan = plan_of(make_case([RowSpec(keys=20, queries=7), RowSpec(keys=30), RowSpec(keys=2, queries=2)]))
    assert len(plan.direct) == 3
    assert plan.loaded_keys == (16 + 19 + 20) + 30 + 2
    assert plan.unique_keys == 20 + 30 + 2


def test_shared_keys_are_read_once_for_all_rows() -> None:
    rows = [RowSpec(keys=3, front=("a",)) for _ in range(4)]
    case = make_case(rows, {"a": 16})
    read = sum(int(table[:, 4].sum()) for table in (lambda plan: (plan.private, plan.shared))(plan_of(case)))
    assert read == 64 + 4 * 3
    plain = plan_of(case, is_shared=False)
    assert int(plain.private[:, 4].sum()) == 4 * (64 + 3) and not len(plain.shared)


def test_shared_strips_are_long_where_there_is_enough_else_to_do() -> None:
    case = make_case([RowSpec(keys=1, front=("a",)) for _ in range(4)], {"a": 64})
    assert len(plan_of(case, replace(TILING, shared_strips=4)).shared) == 4
    assert len(plan_of(case, replace(TILING, shared_strips=1000)).shared) == 256 // TILING.split_keys


@pytest.mark.parametrize("cut", [0, 1, 7, 12])
def test_attention_over_a_prefix_merged_with_that_over_the_rest_is_attention_over_all(cut: int) -> None:
    torch.manual_seed(cut)
    query, (keys, values) = torch.randn(5, 4, 8), torch.randn(2, 12, 4, 8)

    def part(first: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.einsum("qhd,khd->qhk", query, keys[first:end])
        weights = torch.softmax(scores, -1)
        return torch.einsum("qhk,khd->qhd", weights, values[first:end]), torch.logsumexp(scores, -1)

    whole, whole_lse = part(0, 12)
    merged, lse = merge_pair(*part(0, cut), *part(cut, 12))
    torch.testing.assert_close(merged, whole)
    torch.testing.assert_close(lse, whole_lse)
