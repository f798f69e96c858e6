"""The page pool: states of a page, and what may never happen to one."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.kv.pages import OutOfPages, PagePool
from tests.gpu.kv.stateful import FAST


def test_a_new_pool_has_only_free_pages() -> None:
    pool = PagePool(5, 16)
    assert (pool.free, pool.idle, pool.held) == (5, 0, 0)
    pool.check()


def test_a_pool_without_pages_or_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="0 pages of 16 tokens"):
        PagePool(0, 16)
    with pytest.raises(ValueError, match="4 pages of 0 tokens"):
        PagePool(4, 0)


def test_allocated_pages_are_distinct_and_held_once() -> None:
    pool = PagePool(4, 16)
    pages = pool.allocate(3)
    assert len(set(pages)) == 3
    assert [pool.references(page) for page in pages] == [1, 1, 1]
    assert (pool.free, pool.held) == (1, 3)


def test_asking_for_more_than_is_free_changes_nothing_and_names_the_numbers() -> None:
    pool = PagePool(4, 16)
    pool.allocate(3)
    with pytest.raises(OutOfPages, match="2 KV pages asked for, 1 of 4 are free"):
        pool.allocate(2)
    assert pool.free == 1
    pool.check()


def test_out_of_pages_is_an_engine_error_that_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(OutOfPages("3 pages")))
    assert isinstance(error, OutOfPages) and isinstance(error, EngineError) and str(error) == "3 pages"


def test_a_page_is_free_when_its_last_holder_lets_go() -> None:
    pool = PagePool(2, 16)
    pages = pool.allocate(2)
    pool.retain(pages)
    pool.release(pages)
    assert pool.free == 0
    pool.release(pages)
    assert pool.free == 2


def test_releasing_more_often_than_held_is_caught() -> None:
    pool = PagePool(1, 16)
    pages = pool.allocate(1)
    pool.release(pages)
    with pytest.raises(AssertionError, match="released more often"):
        pool.release(pages)


def test_a_free_page_cannot_be_held_by_asking_for_it() -> None:
    pool = PagePool(1, 16)
    with pytest.raises(KeyError):
        pool.retain([0])


def test_a_cached_page_is_idle_not_free_when_its_last_holder_lets_go() -> None:
    pool = PagePool(2, 16)
    [page] = pool.allocate(1)
    pool.cache(page)
    pool.release([page])
    assert (pool.free, pool.idle, pool.held) == (1, 1, 0)
    pool.uncache(page)
    assert (pool.free, pool.idle, pool.held) == (2, 0, 0)


def test_only_a_page_with_one_holder_that_is_not_cached_is_writable() -> None:
    pool = PagePool(2, 16)
    [page] = pool.allocate(1)
    assert pool.is_writable(page)
    pool.retain([page])
    assert not pool.is_writable(page)
    pool.release([page])
    pool.cache(page)
    assert not pool.is_writable(page)
    pool.uncache(page)
    assert pool.is_writable(page)
    pool.release([page])
    assert not pool.is_writable(page)


def test_idle_pages_are_ordered_by_when_they_were_let_go_and_from_the_end_of_a_text() -> None:
    pool = PagePool(4, 16)
    first, second = pool.allocate(2), pool.allocate(2)
    for page in first + second:
        pool.cache(page)
    pool.release(second)
    pool.release(first)
    assert pool.idle_pages() == (second[1], second[0], first[1], first[0])
    pool.retain(second)
    pool.release(second)
    assert pool.idle_pages() == (first[1], first[0], second[1], second[0])
    assert pool.next_idle == first[1]


def test_tokens_are_rounded_up_to_pages() -> None:
    pool = PagePool(1, 4)
    assert [pool.pages_for(tokens) for tokens in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


def test_check_finds_a_page_that_is_free_and_held() -> None:
    pool = PagePool(2, 16)
    [page] = pool.allocate(1)
    pool._free.append(page)
    with pytest.raises(AssertionError, match="free list disagrees"):
        pool.check()


class PoolMachine(RuleBasedStateMachine):
    """Any order of allocate, retain, release, cache, uncache against two dictionaries."""

    @initialize(pages=st.integers(1, 8))
    def new_pool(self, pages: int) -> None:
        self.pool = PagePool(pages, 4)
        self.references: dict[int, int] = {}
        self.cached: set[int] = set()

    @rule(count=st.integers(0, 4))
    def allocate(self, count: int) -> None:
        taken = set(self.references) | self.cached
        if count > self.pool.pages - len(taken):
            with pytest.raises(OutOfPages):
                self.pool.allocate(count)
            return
        pages = self.pool.allocate(count)
        assert len(set(pages)) == count and not taken & set(pages)
        self.references.update(dict.fromkeys(pages, 1))

    @precondition(lambda self: self.references or self.cached)
    @rule(data=st.data())
    def retain(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(sorted(set(self.references) | self.cached)))
        self.pool.retain([page])
        self.references[page] = self.references.get(page, 0) + 1

    @precondition(lambda self: self.references)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        pages = data.draw(st.lists(st.sampled_from(sorted(self.references)), unique=True))
        self.pool.release(pages)
        for page in pages:
            self.references[page] -= 1
            if self.references[page] == 0:
                del self.references[page]

    @precondition(lambda self: set(self.references) - self.cached)
    @rule(data=st.data())
    def cache(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(sorted(set(self.references) - self.cached)))
        self.pool.cache(page)
        self.cached.add(page)

    @precondition(lambda self: self.cached)
    @rule(data=st.data())
    def uncache(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(sorted(self.cached)))
        self.pool.uncache(page)
        self.cached.remove(page)

    @invariant()
    def agrees(self) -> None:
        self.pool.check()
        idle = self.cached - set(self.references)
        assert set(self.pool.idle_pages()) == idle
        assert self.pool.held == len(self.references)
        assert self.pool.free == self.pool.pages - len(idle) - len(self.references)
        for page in range(self.pool.pages):
            assert self.pool.references(page) == self.references.get(page, 0)
            assert self.pool.is_cached(page) == (page in self.cached)


TestPagePoolInAnyOrder = PoolMachine.TestCase
TestPagePoolInAnyOrder.settings = FAST
