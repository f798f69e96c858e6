"""Shared prefixes are found by page ids alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.gpu.kernels.costs import _chosen
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


def test_a_run_that_is_too_short_is_part_of_the_longer_ones_behind_it() -> None:
    rows = [row([7, 1, 2, 3]), row([7, 4, 5]), row([7, 1, 2, 9]), row([7, 4, 5, 6]), row([7])]
    assert set(find_shared(rows, PAGE, 2)) == {node((0, 2), 0, 3), node((1, 3), 0, 3)}
    assert find_shared(rows[:2], PAGE, 2) == ()


def test_beginnings_of_one_text_make_few_prefixes_however_many_they_are() -> None:
    comb = [row([*range(10, 11 + at), 1000 + at]) for at in range(128)]
    assert len(find_shared(comb, PAGE)) == 127
    found = find_shared(comb, PAGE, 16)
    assert len(found) <= 128 // 16 and all(each.pages >= 16 for each in found)
    assert sum(len(each.rows) for each in found) <= 128 * 128 // 16


LISTS = st.lists(st.lists(st.sampled_from([0, 1, 256, 65_537]), max_size=6), max_size=7)


def check_forest(rows: list[ForestRow], found: Sequence[SharedPrefix]) -> None:
    before: dict[int, list[SharedPrefix]] = {number: [] for number in range(len(rows))}
    for each in found:
        assert len(each.rows) > 1 and each.pages > 0 and list(each.rows) == sorted(set(each.rows))
        fronts = {tuple(rows[r].pages[: each.end_page].tolist()) for r in each.rows}
        assert len(fronts) == 1 and len(next(iter(fronts))) == each.end_page
        assert all(before[r] == before[each.rows[0]] for r in each.rows), "the rows have the same prefixes before it"
        for number in each.rows:
            assert all(other.end_page <= each.first_page for other in before[number])
            before[number].append(each)


@settings(max_examples=200, deadline=None)
@given(LISTS)
def test_every_node_is_true_and_every_shared_page_is_in_one(spec: list[list[int]]) -> None:
    rows = [row(pages) for pages in spec]
    found = find_shared(rows, PAGE)
    check_forest(rows, found)
    covered = {(number, at): each.rows for each in found for number in each.rows for at in _places(each)}
    for number, pages in enumerate(spec):
        for at in range(len(pages)):
            same = tuple(other for other, others in enumerate(spec) if others[: at + 1] == pages[: at + 1])
            assert covered.get((number, at)) == (same if len(same) > 1 else None)


@settings(max_examples=200, deadline=None)
@given(LISTS, st.integers(1, 3), st.sets(st.integers(0, 9)))
def test_what_is_left_when_some_do_not_pay_is_a_forest_again(
    spec: list[list[int]], least: int, unpaid: set[int]
) -> None:
    rows = [row(pages) for pages in spec]
    found = find_shared(rows, PAGE, least)
    check_forest(rows, found)
    assert all(each.pages >= least and each.first_page in {0, *(other.end_page for other in found)} for each in found)
    asked = iter(range(len(found)))
    kept, gained = _chosen(found, lambda one: -1.0 if next(asked) in unpaid else 1.0)
    check_forest(rows, kept)
    ends = {(each.rows, each.end_page) for each in kept}
    assert ends == {(each.rows, each.end_page) for at, each in enumerate(found) if at not in unpaid}
    assert gained == len(kept)
    for each in kept:  # what precedes it is read with it, or together before it
        others = [other.end_page for other in kept if other is not each and set(each.rows) <= set(other.rows)]
        assert each.first_page == max((end for end in others if end < each.end_page), default=0)


def _places(each: SharedPrefix) -> range:
    return range(each.first_page, each.end_page)
