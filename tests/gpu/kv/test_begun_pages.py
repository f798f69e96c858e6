"""Pages that others have begun: who has the same text shares them, and who writes into them copies."""

from __future__ import annotations

from parrot_compat.gpu.kv.contexts import Contexts
from parrot_compat.gpu.kv.pages import PagePool
from parrot_compat.gpu.kv.radix import RadixTree
from tests.gpu.kv.simple import Kv, numbers


def test_a_prompt_that_another_has_computed_is_not_computed_again_but_for_its_last_token() -> None:
    kv = Kv()
    first = kv.open(numbers(11), keep_last=True)
    kv.run(first)
    second = kv.open(numbers(11), keep_last=True)
    assert second.computed == 10 and second.pages == first.pages
    shared = first.pages[2]
    assert kv.run(second) == ((shared, second.pages[2]),)
    kv.contexts.extend(first, [77])
    assert kv.run(first) == () and first.pages[2] == shared


def test_the_last_of_many_with_one_prompt_needs_no_copy() -> None:
    kv = Kv()
    contexts = [kv.open(numbers(11), keep_last=True) for _ in range(4)]
    kv.run(contexts[0])
    for context in contexts[1:]:
        assert kv.contexts.match(context) == 10
    kv.contexts.extend(contexts[0], [77])
    copies = [pair for context in contexts for pair in kv.run(context)]
    assert len(copies) == 3 and len({context.pages[2] for context in contexts}) == 4


def test_a_few_tokens_of_a_begun_page_are_computed_again_more_are_taken_over() -> None:
    pool = PagePool(16, 8)
    contexts = Contexts(pool, RadixTree(pool))
    first = contexts.open(1, "", numbers(15))
    contexts.reserve(first, 15)
    contexts.commit(first, 15)
    assert contexts.open(2, "", [*numbers(11), 77, 78]).computed == 8
    fourth = contexts.open(3, "", [*numbers(12), 77, 78])
    assert fourth.computed == 12 and fourth.pages == first.pages
    assert contexts.open(4, "", numbers(11)).computed == 11, "nothing is left to compute"
    contexts.check()


def test_the_longest_common_begin_of_all_begun_pages_is_taken() -> None:
    pool = PagePool(16, 8)
    contexts = Contexts(pool, RadixTree(pool))
    for id, length in enumerate((4, 6, 5)):
        context = contexts.open(id, "", [*numbers(length), 77])
        contexts.reserve(context, length + 1)
        contexts.commit(context, length + 1)
    assert contexts.open(9, "", numbers(8)).computed == 6
    assert contexts.get(9).pages == contexts.get(1).pages
    contexts.check()


def test_a_begun_page_is_another_after_other_pages_or_in_another_namespace() -> None:
    kv = Kv()
    kv.computed([*numbers(4), 8, 9, 10])
    kv.computed(numbers(7), namespace="other")
    assert kv.open([*numbers(4, 50), 8, 9, 10]).computed == 0
    assert kv.open(numbers(7)).computed == 4


def test_a_begun_page_of_another_salt_is_not_found_and_who_is_read_computes_all() -> None:
    kv = Kv()
    first = kv.open(numbers(7))
    kv.run(first)
    salted, read = kv.open([]), kv.open([])
    kv.contexts.extend(salted, numbers(7), salt="longer")
    kv.contexts.extend(read, numbers(7), is_read=True)
    assert salted.computed == read.computed == 0
    kv.contexts.check()


def test_a_begun_page_is_gone_with_the_last_who_holds_it() -> None:
    kv = Kv()
    first = kv.computed(numbers(7))
    second = kv.open(numbers(7))
    kv.free(first)
    assert second.computed == 7
    kv.free(second)
    assert kv.open(numbers(7)).computed == 4


def test_a_cut_context_is_not_found_by_what_was_cut_off() -> None:
    kv = Kv()
    first = kv.computed(numbers(7))
    kv.contexts.truncate(first, 5)
    assert kv.open(numbers(7)).computed == 4
    kv.contexts.extend(first, [77, 78])
    kv.run(first)
    assert kv.open(numbers(7)).computed == 4
