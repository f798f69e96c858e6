"""Contexts: what is shared, what is copied, what is given back, one behaviour at a time."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.core.errors import ContextLost
from parrot_compat.gpu.kv.pages import OutOfPages
from tests.gpu.kv.simple import SIZE, Kv, numbers

# -- open, reserve, commit


def test_a_new_context_has_no_pages_and_nothing_computed() -> None:
    context = Kv().open(numbers(10))
    assert (context.computed, context.pages, context.tokens) == (0, [], numbers(10))


def test_reserve_gives_pages_for_the_tokens_asked_for_only() -> None:
    kv = Kv()
    context = kv.open(numbers(10))
    assert kv.contexts.reserve(context, 5) == ()
    assert len(context.pages) == 2
    assert kv.contexts.reserve(context, 10) == ()
    assert len(context.pages) == 3
    assert kv.contexts.free_pages == 13


def test_a_prompt_computed_in_chunks_keeps_its_pages_in_order() -> None:
    kv = Kv()
    context = kv.open(numbers(10))
    seen: list[int] = []
    for upto in (3, 4, 9, 10):
        kv.run(context, upto)
        assert context.pages[: len(seen)] == seen and context.computed == upto
        seen = list(context.pages)


def test_full_pages_are_found_by_the_next_context_before_the_first_is_freed() -> None:
    kv = Kv()
    first = kv.computed(numbers(10))
    second = kv.open([*numbers(8), 77])
    assert second.computed == 8 and second.pages == first.pages[:2]


def test_freed_contexts_leave_their_full_pages_as_cache_and_the_rest_free() -> None:
    kv = Kv()
    kv.free(kv.computed(numbers(10)))
    assert (kv.pool.free, kv.pool.idle) == (14, 2)
    assert kv.contexts.free_pages == 16
    assert kv.open(numbers(12)).computed == 8


def test_free_is_idempotent_and_a_freed_context_is_lost() -> None:
    kv = Kv()
    context = kv.computed(numbers(5))
    kv.free(context)
    kv.free(context)
    with pytest.raises(ContextLost, match=f"context {context.id} is not in this engine"):
        kv.contexts.get(context.id)
    with pytest.raises(ContextLost):
        kv.contexts.fork(99, context.id)
    assert len(kv.contexts) == 0


def test_namespaces_never_share() -> None:
    kv = Kv()
    mine = kv.computed(numbers(8), namespace="mine")
    other = kv.open(numbers(8), namespace="other")
    assert other.computed == 0
    kv.run(other)
    assert not set(mine.pages) & set(other.pages)


def test_without_a_tree_nothing_is_found_again_and_nothing_stays() -> None:
    kv = Kv(caching=False)
    context = kv.computed(numbers(12))
    assert kv.open(numbers(12)).computed == 0
    kv.free(context)
    assert (kv.pool.free, kv.pool.idle) == (16, 0)


def test_without_a_tree_forks_still_share() -> None:
    kv = Kv(caching=False)
    parent = kv.computed(numbers(6))
    child = kv.fork(parent)
    assert child.computed == 6 and child.pages == parent.pages
    kv.contexts.extend(child, [77])
    assert kv.run(child) == ((parent.pages[1], child.pages[1]),)
    assert child.pages[0] == parent.pages[0]


# -- two at once


def test_two_that_compute_the_same_page_end_up_with_one_and_the_duplicate_is_freed() -> None:
    kv = Kv()
    first, second = kv.open(numbers(8)), kv.open(numbers(8))
    kv.contexts.reserve(first, 8)
    kv.contexts.reserve(second, 8)
    assert not set(first.pages) & set(second.pages)
    kv.contexts.commit(first, 8)
    kv.contexts.commit(second, 8)
    assert second.pages == first.pages
    assert kv.pool.free == 14
    kv.contexts.check()


def test_a_duplicate_in_the_middle_of_what_is_committed_is_swapped_alone() -> None:
    kv = Kv()
    first = kv.computed(numbers(6))
    second = kv.open(numbers(12))
    kv.contexts.reserve(second, 12)
    kv.contexts.extend(first, [6, 7])
    kv.run(first)
    mine = list(second.pages)
    kv.contexts.commit(second, 12)
    assert second.pages == [first.pages[0], first.pages[1], mine[2]]
    kv.contexts.check()


def test_a_context_that_waited_takes_over_what_another_has_computed_meanwhile() -> None:
    kv = Kv()
    first, waiting = kv.open(numbers(9)), kv.open(numbers(12))
    kv.run(first)
    assert waiting.computed == 0
    assert kv.contexts.match(waiting) == 8
    assert waiting.pages == first.pages[:2]


def test_of_a_long_text_that_waits_no_more_is_looked_at_than_is_known() -> None:
    class Counted(list[int]):
        cut = 0

        def __getitem__(self, place: Any) -> Any:
            found = super().__getitem__(place)
            self.cut += len(found) if isinstance(place, slice) else 1
            return found

    kv = Kv()
    kv.computed(numbers(6))
    begun = kv.computed([900, 901])
    waiting = kv.open(numbers(10_000, start=1000))
    waiting.tokens = unknown = Counted(waiting.tokens)
    assert kv.contexts.match(waiting) == 0
    assert 0 < unknown.cut <= 2 * SIZE, "a page for the tree, and one for those that are begun"
    known = kv.open([*numbers(6), *numbers(10_000, start=1000)])
    kv.contexts.drop(known)
    known.tokens = looked_at = Counted(known.tokens)
    assert kv.contexts.match(known) == 4 and looked_at.cut <= 3 * SIZE
    kv.free(begun, waiting, known)


def test_a_context_that_was_read_takes_over_what_is_known_when_it_has_lost_its_pages() -> None:
    kv = Kv()
    context = kv.computed(numbers(9))
    kv.contexts.extend(context, [9], is_read=True)
    assert context.computed == 0
    kv.run(context)
    kv.contexts.drop(context)
    assert kv.contexts.match(context) == 0
    kv.contexts.was_read(context)
    assert kv.contexts.match(context) == 8


def test_a_page_that_was_begun_gives_way_to_the_full_one_of_the_tree() -> None:
    kv = Kv()
    begun = kv.computed(numbers(6))
    kv.computed(numbers(12))
    assert begun.computed == 6
    kv.contexts.extend(begun, numbers(7, 6))
    assert begun.computed == 12
    kv.contexts.check()


def test_tokens_that_begin_like_a_longer_cached_page_do_not_get_its_slots() -> None:
    kv = Kv()
    longer = kv.computed(numbers(8))
    short = kv.open(numbers(6))
    assert short.computed == 4 and short.pages == longer.pages[:1]
    kv.run(short)
    assert short.pages[1] != longer.pages[1] and kv.pool.is_writable(short.pages[1])


# -- fork


def test_a_fork_shares_full_pages_and_copies_the_part_page_on_the_first_write() -> None:
    kv = Kv()
    parent = kv.computed(numbers(6))
    child = kv.fork(parent)
    assert child.pages == parent.pages and child.computed == 6 and child.tokens == parent.tokens
    shared = parent.pages[1]
    kv.contexts.extend(child, [77])
    assert kv.run(child) == ((shared, child.pages[1]),)
    assert parent.pages[1] == shared and child.pages[1] != shared
    kv.contexts.extend(parent, [88])
    assert kv.run(parent) == ()


def test_a_parent_that_writes_first_copies_and_leaves_the_page_to_its_fork() -> None:
    kv = Kv()
    parent = kv.computed(numbers(6))
    child = kv.fork(parent)
    shared = child.pages[1]
    kv.contexts.extend(parent, [88])
    assert kv.run(parent) == ((shared, parent.pages[1]),)
    kv.contexts.extend(child, [77])
    assert kv.run(child) == ()
    assert child.pages[1] == shared


def test_a_fork_does_not_share_pages_that_are_reserved_and_not_written() -> None:
    kv = Kv()
    parent = kv.open(numbers(12))
    kv.run(parent, 6)
    kv.contexts.reserve(parent, 12)
    child = kv.fork(parent)
    assert child.pages == parent.pages[:2] and child.tokens == numbers(12)
    kv.contexts.check()


def test_a_fork_taken_while_the_parent_is_being_written_keeps_what_was_there() -> None:
    kv = Kv()
    parent = kv.computed(numbers(6))
    kv.contexts.extend(parent, [6, 7, 8])
    kv.contexts.reserve(parent, 9)
    child = kv.fork(parent)
    kv.contexts.commit(parent, 9)
    assert child.computed == 6
    kv.contexts.truncate(child, 6)
    kv.contexts.extend(child, [77])
    assert kv.run(child) == ((parent.pages[1], child.pages[1]),)


def test_a_fork_outlives_its_parent() -> None:
    kv = Kv()
    parent = kv.computed(numbers(6))
    child = kv.fork(parent)
    kv.free(parent)
    assert child.computed == 6
    kv.contexts.extend(child, [77])
    assert kv.run(child) == ()


def test_forks_of_one_prompt_are_free_until_they_write() -> None:
    kv = Kv()
    parent = kv.computed(numbers(6))
    children = [kv.fork(parent) for _ in range(50)]
    assert kv.pool.free == 14
    kv.free(parent, *children)
    assert kv.contexts.free_pages == 16


# -- truncate


def test_truncate_to_a_page_boundary_gives_back_the_pages_after_it() -> None:
    kv = Kv()
    context = kv.computed(numbers(10))
    kv.contexts.truncate(context, 4)
    assert (context.tokens, context.computed, len(context.pages)) == (numbers(4), 4, 1)
    assert (kv.pool.free, kv.pool.idle) == (14, 1)


def test_a_cut_inside_a_page_of_the_tree_copies_it_before_another_token_is_written() -> None:
    kv = Kv()
    context = kv.computed(numbers(8))
    shared = context.pages[1]
    kv.contexts.truncate(context, 6)
    assert context.pages[1] == shared
    kv.contexts.extend(context, [77, 78])
    assert kv.run(context) == ((shared, context.pages[1]),)
    assert context.pages[1] != shared
    assert kv.open(numbers(8)).pages == [context.pages[0], shared]


def test_a_cut_followed_by_the_same_tokens_finds_the_page_again_without_a_copy() -> None:
    kv = Kv()
    context = kv.computed(numbers(8))
    pages = list(context.pages)
    kv.contexts.truncate(context, 6)
    kv.contexts.extend(context, [6, 7])
    assert context.computed == 8 and context.pages == pages
    kv.contexts.check()


def test_a_cut_inside_a_page_of_ours_alone_needs_no_copy() -> None:
    kv = Kv()
    context = kv.computed(numbers(7))
    kv.contexts.truncate(context, 5)
    kv.contexts.extend(context, [77])
    assert kv.run(context) == ()


def test_truncate_past_the_end_changes_nothing() -> None:
    kv = Kv()
    context = kv.computed(numbers(6))
    pages = list(context.pages)
    kv.contexts.truncate(context, 100)
    assert (context.tokens, context.computed, context.pages) == (numbers(6), 6, pages)


def test_truncate_to_nothing_leaves_an_empty_context() -> None:
    kv = Kv()
    context = kv.computed(numbers(6))
    kv.contexts.truncate(context, 0)
    assert (context.tokens, context.computed, context.pages) == ([], 0, [])


# -- keep_last


def test_keep_last_leaves_one_token_of_a_wholly_cached_prompt_and_copies_its_page() -> None:
    kv = Kv()
    first = kv.computed(numbers(8))
    again = kv.open(numbers(8), keep_last=True)
    assert again.computed == 7
    [(source, target)] = kv.contexts.reserve(again, 8)
    assert source == first.pages[1] and kv.pool.is_writable(target)
    kv.contexts.commit(again, 8)
    assert again.pages == first.pages and kv.pool.free == 14


def test_keep_last_needs_no_copy_where_the_last_token_begins_a_page() -> None:
    kv = Kv()
    kv.computed(numbers(9))
    again = kv.open(numbers(9), keep_last=True)
    assert again.computed == 8
    assert kv.run(again) == ()


def test_keep_last_holds_for_the_tokens_appended_later() -> None:
    kv = Kv()
    kv.computed(numbers(12))
    again = kv.open(numbers(6), keep_last=True)
    kv.run(again)
    for token in range(6, 12):
        kv.contexts.extend(again, [token])
        assert again.computed == len(again.tokens) - 1
        kv.run(again)


def test_keep_last_on_a_computed_context_gives_its_last_token_back_to_be_computed() -> None:
    kv = Kv()
    fork = kv.fork(kv.computed(numbers(5)))
    kv.contexts.extend(fork, [], keep_last=True)
    assert fork.computed == 4 and len(fork.pages) == 1
    assert kv.run(fork) == ()


def test_keep_last_can_be_taken_back() -> None:
    kv = Kv()
    kv.computed(numbers(8))
    context = kv.open(numbers(8), keep_last=True)
    kv.contexts.extend(context, [], keep_last=False)
    assert context.computed == 8


# -- drop


def test_drop_gives_up_all_pages_and_keeps_the_tokens() -> None:
    kv = Kv()
    context = kv.computed(numbers(10))
    kv.contexts.drop(context)
    assert (context.computed, context.pages, context.tokens) == (0, [], numbers(10))
    assert kv.contexts.free_pages == 16


def test_a_dropped_context_finds_again_what_was_not_evicted() -> None:
    kv = Kv()
    context = kv.computed(numbers(10))
    kv.contexts.drop(context)
    assert kv.tree is not None
    kv.tree.evict(1)
    assert kv.contexts.match(context) == 4
    kv.run(context)


def test_a_dropped_context_that_is_not_matched_is_computed_again_from_its_first_token() -> None:
    kv = Kv()
    context = kv.computed(numbers(10))
    kv.contexts.drop(context)
    assert kv.run(context) == ()
    assert context.computed == 10


def test_contexts_are_listed_with_the_longest_unused_first() -> None:
    kv = Kv()
    first, second, third = (kv.computed(numbers(4, start)) for start in (0, 10, 20))
    kv.contexts.extend(first, [99])
    kv.run(first)
    assert list(kv.contexts) == [second, third, first]


# -- out of pages


def test_reserve_evicts_cache_before_it_refuses() -> None:
    kv = Kv(pages=4)
    kv.free(kv.computed(numbers(16)))
    assert kv.pool.idle == 4
    context = kv.open(numbers(16, 100))
    kv.run(context)
    assert len(context.pages) == 4


def test_out_of_pages_changes_nothing_and_names_the_numbers() -> None:
    kv = Kv(pages=5)
    kv.free(kv.computed(numbers(4, 50)))
    kv.computed(numbers(8, 100))
    context = kv.open(numbers(20))
    kv.run(context, 4)
    before = (list(context.pages), kv.pool.free, kv.pool.idle_pages(), list(kv.contexts))
    with pytest.raises(OutOfPages, match="4 KV pages needed, 1 free and 1 evictable of 5"):
        kv.contexts.reserve(context, 20)
    assert (list(context.pages), kv.pool.free, kv.pool.idle_pages(), list(kv.contexts)) == before
    kv.contexts.check()


def test_a_fork_that_cannot_be_given_a_page_of_its_own_is_refused_unchanged() -> None:
    kv = Kv(pages=1)
    parent = kv.computed(numbers(2))
    child = kv.fork(parent)
    kv.contexts.extend(child, [77])
    with pytest.raises(OutOfPages):
        kv.contexts.reserve(child, 3)
    assert child.pages == parent.pages
    kv.contexts.drop(parent)
    assert kv.run(child) == ()


def test_a_context_as_long_as_the_pool_can_write_into_its_own_cached_page() -> None:
    kv = Kv(pages=2)
    context = kv.computed(numbers(8))
    kv.contexts.truncate(context, 6)
    kv.contexts.extend(context, [77, 78])
    assert kv.run(context) == ()
    assert len(context.pages) == 2
    assert kv.open(numbers(8)).computed == 4


# -- check


def test_check_finds_a_page_that_no_context_holds() -> None:
    kv = Kv()
    kv.computed(numbers(4))
    kv.pool.allocate(1)
    with pytest.raises(AssertionError, match="has 1 holders, 0 contexts"):
        kv.contexts.check()


def test_check_finds_a_full_page_that_is_not_the_trees() -> None:
    kv = Kv()
    context = kv.computed(numbers(8))
    context.tokens[0] = 99
    with pytest.raises(AssertionError, match="other pages than the tree's"):
        kv.contexts.check()
