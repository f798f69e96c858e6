"""A context's pages as an array: always what the list holds, and no page turned into a number twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.batch import BatchRow, PackedRows
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.kv.page_list import PageList
from tests.gpu.kv.simple import SIZE, Kv, numbers

DRAW = Draw(sampling=ResolvedSampling(max_tokens=1), index=0)
pages = st.lists(st.integers(0, 99), max_size=6)
places = st.one_of(st.none(), st.integers(-9, 9))
slices = st.builds(slice, places, places, st.sampled_from([None, 1, 2, -1]))


def applied(kind: str, place: Any, new: list[int], to: list[int]) -> Exception | None:
    """The same change to a list of either kind; what it raised."""
    try:
        if kind == "grow":
            to += new
        elif kind == "append":
            to.append(len(new))
        elif kind == "extend":
            to.extend(new)
        elif kind == "set":
            to[place] = new if isinstance(place, slice) else len(new)
        else:
            del to[place]
    except (IndexError, ValueError) as error:
        return error
    return None


@settings(max_examples=300, deadline=None)
@given(
    begin=pages,
    changes=st.lists(
        st.tuples(
            st.sampled_from(["grow", "append", "extend", "set", "del"]),
            st.one_of(st.integers(-9, 9), slices),
            pages,
            st.booleans(),
        ),
        max_size=12,
    ),
)
def test_the_array_is_the_list_whatever_was_changed_since_it_was_read(
    begin: list[int], changes: list[tuple[str, Any, list[int], bool]]
) -> None:
    plain, ours = list(begin), PageList(begin)
    for kind, place, new, is_read in changes:
        assert type(applied(kind, place, new, plain)) is type(applied(kind, place, new, ours))
        assert ours == plain
        if is_read:
            ours.check()
    ours.check()


@pytest.mark.parametrize("change", ["insert", "pop", "remove", "clear", "sort", "reverse", "__imul__"])
def test_a_change_that_the_array_would_not_follow_cannot_be_made(change: str) -> None:
    with pytest.raises(TypeError):
        getattr(PageList([1, 2]), change)()


def test_the_front_of_a_list_goes_its_own_way() -> None:
    whole = PageList([5, 3, 8, 1])
    whole.check()
    whole += [7]
    for count in range(7):
        front = whole.front(count)
        assert isinstance(front, PageList) and front == whole[:count]
        front.check()
        front += [50, 51]
        front.check()
        whole.check()


def test_the_pages_of_a_context_stay_such_a_list_in_all_that_becomes_of_it() -> None:
    kv = Kv()
    first, second = kv.open(numbers(8)), kv.open(numbers(8))
    for context in (first, second):
        kv.contexts.reserve(context, 8)
    kept, given_back = list(first.pages.array), list(second.pages.array)
    for context in (first, second):
        kv.contexts.commit(context, 8)
    assert second.pages.array.tolist() == kept != given_back, "where it computed what another did first"
    fork = kv.fork(second)
    kv.contexts.extend(fork, [70, 71])
    kv.run(fork)
    kv.contexts.truncate(fork, 6)
    kv.contexts.extend(fork, [80, 81, 82])
    kv.run(fork)
    for context in (first, second, fork):
        assert isinstance(context.pages, PageList)
        assert context.pages.array.tolist() == list(context.pages)


class Page:
    """A page number that counts how often it is turned into one of numpy's."""

    turned = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        Page.turned += 1
        return self.number

    def __mul__(self, size: int) -> int:
        return int(self) * size


@pytest.mark.parametrize("beside_a_prompt", [False, True])
def test_in_a_hundred_steps_each_page_of_a_row_is_turned_into_a_number_once(beside_a_prompt: bool) -> None:
    Page.turned, steps, computed = 0, 100, 2000 * SIZE
    listed: Any = [Page(number) for number in range(2000)]
    held = PageList(listed)
    other = [BatchRow(tokens=(1, 2), start=0, pages=[9999], draw=None)] if beside_a_prompt else []
    for start in range(computed, computed + steps):
        if start // SIZE == len(held):
            new: Any = [Page(start // SIZE)]
            held += new
        packed = PackedRows.of([BatchRow(tokens=(7,), start=start, pages=held, draw=DRAW), *other], SIZE)
        assert packed.pages[: len(held)].tolist() == list(range(len(held)))
        assert packed.slots[0] == start
    assert len(held) == 2000 + steps // SIZE
    # and that of the slot it writes, in each step
    assert Page.turned <= len(held) + steps
