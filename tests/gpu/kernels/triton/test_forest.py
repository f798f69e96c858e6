"""Shared prefixes are found by page ids alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.gpu.kernels.forest import ForestRow, SharedPrefix, find_shared

PAGE = 4


def row(pages: list[int], shareable: int | None = None) -> ForestRow:
    held = len(pages) * PAGE if shareable is None else shareable
    return ForestRow(pages=np.array(pages, dtype=np.int64), shareable=held)


def node(rows: tuple[int, ...], first_page: int, end_page: int) -> SharedPrefix:
    return SharedPrefix(rows=rows, first_page=first_page, end_page=end_page)


def test_rows_with_equal_first_pages_share_them_and_no_more() -> None:
    assert find_shared([row([7, 8, 1]), row([7, 8, 2]), row([7, 8])], PAGE) == (node((0, 1, 2), 0, 2),)


def test_rows_that_share_more_are_levels_below_those_that_share_less() -> None:
    rows = [row([7, 8, 9, 1]), row([7, 2]), row([7, 8, 9, 3]), row([7, 8, 4])]
    assert set(find_shared(rows, PAGE)) == {node((0, 1, 2, 3), 0, 1), node((0, 2, 3), 1, 2), node((0, 2), 2, 3)}


def test_several_trees_are_a_forest() -> None:
    rows = [row([1, 2]), row([5, 6]), row([1, 3]), row([5, 4])]
    assert set(find_shared(rows, PAGE)) == {node((0, 2), 0, 1), node((1, 3), 0, 1)}


def test_a_foreign_row_does_not_switch_the_others_off() -> None:
    assert find_shared([row([7, 1]), row([9, 9]), row([7, 2])], PAGE) == (node((0, 2), 0, 1),)


def test_a_page_that_is_not_full_is_never_shared() -> None:
    assert find_shared([row([7, 8], shareable=7), row([7, 8], shareable=8)], PAGE) == (node((0, 1), 0, 1),)
    assert find_shared([row([7], shareable=3), row([7], shareable=3)], PAGE) == ()


def test_equal_pages_behind_different_ones_are_not_a_prefix() -> None:
    assert find_shared([row([1, 7]), row([2, 7])], PAGE) == ()


def test_page_ids_of_any_size_are_told_apart() -> None:
    far = 2**40
    rows = [row([far, 256, 1]), row([far, 1, 1]), row([far + 1, 256, 1]), row([far, 256, 2]), row([far + 256, 1])]
    assert set(find_shared(rows, PAGE)) == {node((0, 1, 3), 0, 1), node((0, 3), 1, 2)}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, 256, 65_537]), max_size=5), max_size=7))
def test_every_node_is_true_and_every_shared_page_is_in_one(spec: list[list[int]]) -> None:
    rows = [row(pages) for pages in spec]
    covered: dict[tuple[int, int], tuple[int, ...]] = {}
    for found in find_shared(rows, PAGE):
        assert len(found.rows) > 1 and found.pages > 0
        fronts = {tuple(rows[r].pages[: found.end_page].tolist()) for r in found.rows}
        assert len(fronts) == 1 and len(next(iter(fronts))) == found.end_page
        for number in found.rows:
            for at in range(found.first_page, found.end_page):
                assert (number, at) not in covered
                covered[number, at] = found.rows
    for number, pages in enumerate(spec):
        for at in range(len(pages)):
            same = tuple(other for other, others in enumerate(spec) if others[: at + 1] == pages[: at + 1])
            assert covered.get((number, at)) == (same if len(same) > 1 else None)
