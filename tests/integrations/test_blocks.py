"""Blocks of an app's code: what is said in them, and in which contexts it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import copy_context

import pytest

from parrot_compat.integrations.labels import current_session_label, session
from parrot_compat.integrations.plans.switches import is_on, planning

BLOCKS = {"session": lambda: session("report 17"), "planning": lambda: planning(False)}


def said() -> tuple[str | None, bool]:
    return current_session_label(), is_on()


@pytest.mark.parametrize("block", BLOCKS.values(), ids=list(BLOCKS))
def test_a_block_may_be_left_in_another_context_than_it_was_entered_in(
    block: Callable[[], AbstractContextManager[None]],
) -> None:
    def pieces() -> Iterator[tuple[str | None, bool]]:
        with block():
            yield said()
            yield said()

    before, stream = said(), pieces()
    found = [copy_context().run(next, stream, None) for _ in range(3)]  # as web frameworks take them
    assert found == [found[0], before, None] and found[0] != before
    assert said() == before


@pytest.mark.parametrize("block", BLOCKS.values(), ids=list(BLOCKS))
def test_behind_a_block_holds_what_held_before(block: Callable[[], AbstractContextManager[None]]) -> None:
    with session("outer"), planning(True):
        outer = said()
        with block():
            inside = copy_context()
            assert said() != outer
        assert said() == outer
        assert inside.run(said) != outer
