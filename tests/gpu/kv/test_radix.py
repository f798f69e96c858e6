"""The radix tree: what is found, what is shared, what goes first."""

from __future__ import annotations

import pytest

from parrot_compat.gpu.kv.pages import PagePool
from parrot_compat.gpu.kv.radix import RadixTree

SIZE = 4


def tree_of(pages: int = 16) -> tuple[PagePool, RadixTree]:
    pool = PagePool(pages, SIZE)
    return pool, RadixTree(pool)


def text(*parts: int) -> list[int]:
    """One page of four tokens for each number, different numbers different pages."""
    return [part * 10 + offset for part in parts for offset in range(SIZE)]


def put(pool: PagePool, tree: RadixTree, tokens: list[int], namespace: str = "") -> list[int]:
    """Cache a text and let go of it."""
    pages = tree.insert(namespace, tokens, pool.allocate(pool.pages_for(len(tokens))))
    pool.release(pages)
    tree.check()
    return pages


def look(pool: PagePool, tree: RadixTree, tokens: list[int], namespace: str = "") -> list[int]:
    pages = tree.match(namespace, tokens)
    pool.release(pages)
    return pages


def test_an_empty_tree_knows_nothing() -> None:
    pool, tree = tree_of()
    assert tree.match("", text(1, 2)) == []
    assert len(tree) == 0 and tree.evictable == 0 and tree.evict(3) == 0
    pool.check()


def test_the_longest_known_beginning_is_found_in_full_pages() -> None:
    pool, tree = tree_of()
    pages = put(pool, tree, text(1, 2, 3))
    assert look(pool, tree, text(1, 2, 3, 4)) == pages
    assert look(pool, tree, text(1, 2, 9)) == pages[:2]
    assert look(pool, tree, text(1, 2)[:-1]) == pages[:1]
    assert look(pool, tree, text(9)) == []


def test_a_page_that_differs_in_its_last_token_is_not_shared() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1))
    assert look(pool, tree, [*text(1)[:-1], 99]) == []


def test_the_same_page_after_another_beginning_is_another_page() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1, 3))
    assert len(look(pool, tree, text(2, 3))) == 0
    other = put(pool, tree, text(2, 3))
    assert look(pool, tree, text(2, 3)) == other
    assert len(tree) == 4


def test_matched_pages_are_held_for_the_caller() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1, 2))
    pages = tree.match("", text(1, 2))
    assert [pool.references(page) for page in pages] == [1, 1]
    assert tree.evictable == 0 and tree.evict(2) == 0
    pool.release(pages)
    assert tree.evictable == 2


def test_texts_that_part_inside_an_edge_share_the_pages_before() -> None:
    pool, tree = tree_of()
    first = put(pool, tree, text(1, 2, 3))
    second = put(pool, tree, text(1, 2, 4))
    assert second[:2] == first[:2] and second[2] != first[2]
    assert len(tree) == 4
    assert pool.free == 12
    assert look(pool, tree, text(1, 2, 3)) == first


def test_a_text_that_ends_inside_an_edge_adds_nothing() -> None:
    pool, tree = tree_of()
    first = put(pool, tree, text(1, 2, 3))
    assert put(pool, tree, text(1, 2)) == first[:2]
    assert len(tree) == 3


def test_the_page_that_came_first_is_canonical_and_the_duplicate_is_freed() -> None:
    pool, tree = tree_of()
    first = pool.allocate(2)
    second = pool.allocate(2)
    assert tree.insert("", text(1, 2), first) == first
    assert tree.insert("", text(1, 2), second) == first
    assert [pool.references(page) for page in first] == [2, 2]
    assert pool.free == 14


def test_a_duplicate_that_others_hold_stays_theirs() -> None:
    pool, tree = tree_of()
    first, second = pool.allocate(1), pool.allocate(1)
    pool.retain(second)
    tree.insert("", text(1), first)
    tree.insert("", text(1), second)
    assert pool.references(second[0]) == 1 and second[0] not in tree
    pool.check()


def test_a_page_that_is_not_full_stays_out() -> None:
    pool, tree = tree_of()
    pages = pool.allocate(2)
    assert tree.insert("", text(1, 2)[:-1], pages) == pages[:1]
    assert pages[1] not in tree and pool.is_writable(pages[1])


def test_namespaces_never_share() -> None:
    pool, tree = tree_of()
    mine = put(pool, tree, text(1, 2), namespace="a")
    assert look(pool, tree, text(1, 2), namespace="b") == []
    other = put(pool, tree, text(1, 2), namespace="b")
    assert not set(mine) & set(other)
    tree.evict(4)
    tree.check()
    assert len(tree) == 0 and pool.free == 16


def test_a_namespace_leaves_nothing_behind() -> None:
    pool, tree = tree_of()
    for number in range(100):
        put(pool, tree, text(1), namespace=str(number))
        tree.evict(1)
    assert not tree._roots


def test_a_walk_may_start_below_a_known_page() -> None:
    pool, tree = tree_of()
    pages = put(pool, tree, text(1, 2, 3, 4))
    held = tree.match("", text(1, 2))
    assert tree.match("", text(3, 4), below=held[-1]) == pages[2:]
    fresh = pool.allocate(2)
    assert tree.insert("", text(3, 5), [pages[2], fresh[0]], below=held[-1]) == [pages[2], fresh[0]]
    tree.check()
    assert look(pool, tree, text(1, 2, 3, 5)) == [*pages[:3], fresh[0]]


def test_a_text_that_grows_page_by_page_stays_one_edge() -> None:
    pool, tree = tree_of()
    pages: list[int] = []
    for part in range(1, 9):
        pages += tree.insert("", text(part), pool.allocate(1), below=pages[-1] if pages else None)
        tree.check()
    assert len({id(node) for node in tree._node_of.values()}) == 1
    assert look(pool, tree, text(*range(1, 9))) == pages


def test_eviction_takes_the_least_recently_held_text_first_and_from_its_end() -> None:
    pool, tree = tree_of()
    old, new = put(pool, tree, text(1, 2)), put(pool, tree, text(3, 4))
    look(pool, tree, text(1, 2))
    assert tree.evict(1) == 1
    assert look(pool, tree, text(3, 4)) == new[:1]
    assert tree.evict(1) == 1
    assert look(pool, tree, text(1, 2)) == old[:1]
    tree.check()


def test_a_shared_beginning_outlives_both_ends() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1, 2))
    put(pool, tree, text(1, 3))
    tree.evict(2)
    assert len(look(pool, tree, text(1))) == 1
    assert len(tree) == 1
    tree.check()


def test_what_is_held_is_never_evicted_and_the_count_freed_is_true() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1, 2, 3))
    held = tree.match("", text(1))
    assert tree.evict(5) == 2
    assert look(pool, tree, text(1, 2)) == held


def test_taking_a_page_forgets_it_and_all_below_it() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1, 2, 3, 4))
    put(pool, tree, text(1, 2, 5))
    put(pool, tree, text(1, 6))
    held = tree.match("", text(1, 2))
    tree.take(held[1])
    tree.check()
    pool.check()
    assert pool.is_writable(held[1]) and len(tree) == 2
    assert look(pool, tree, text(1, 2)) == held[:1]
    assert len(look(pool, tree, text(1, 6))) == 2


def test_taking_a_page_that_another_reads_is_refused() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1))
    tree.match("", text(1))
    [page] = tree.match("", text(1))
    with pytest.raises(AssertionError, match="read by others"):
        tree.take(page)


def test_check_finds_an_idle_page_above_a_held_one() -> None:
    pool, tree = tree_of()
    put(pool, tree, text(1, 2))
    pages = tree.match("", text(1, 2))
    pool.release(pages[:1])
    with pytest.raises(AssertionError, match="goes before"):
        tree.check()
