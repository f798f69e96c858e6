"""Who waits for a page that another computes in this step: found without asking each row, and the same as by asking."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.gpu.scheduler import plan_step
from parrot_compat.gpu.step import Room, SequenceView
from tests.gpu.counted_text import Text

SIZE = 4
ROOM = Room(rows=300, tokens=100_000, free_pages=100_000, page_size=SIZE)


def leads(leader: SequenceView, follower: SequenceView) -> bool:
    """What is meant: `leader` is now inside the page that `follower` would have to compute next, or end its text with,
    which is at least half a page."""
    known = follower.computed // SIZE
    begin, end = known * SIZE, min((known + 1) * SIZE, len(follower.tokens))
    return (
        not follower.is_read
        and leader.namespace == follower.namespace
        and begin <= leader.computed < end <= len(leader.tokens)
        and 2 * (end - follower.computed) >= SIZE
        and (known == 0 or leader.pages[known - 1] == follower.pages[known - 1])
        and leader.tokens[begin:end] == follower.tokens[begin:end]
    )


@st.composite
def some_views(draw: st.DrawFn) -> list[SequenceView]:
    """Texts of few tokens, so that many are alike, computed up to anywhere but the end."""
    views = []
    for id in range(draw(st.integers(1, 10))):
        tokens = draw(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=1, max_size=3 * SIZE))
        computed = draw(st.integers(0, len(tokens) - 1))
        pages = draw(st.lists(st.integers(0, 1), min_size=computed // SIZE, max_size=computed // SIZE))
        views.append(
            SequenceView(
                id=id,
                tokens=tokens,
                computed=computed,
                pages=[*pages, *range(100 * id + 100, 100 * id + 100 + draw(st.integers(0, 1)))],
                is_started=draw(st.booleans()),
                namespace=draw(st.sampled_from(["", "", "tenant"])),
                is_read=draw(st.sampled_from([False, False, True])),
            )
        )
    return views


@settings(max_examples=400)
@given(some_views())
def test_they_are_those_that_asking_every_row_finds(views: list[SequenceView]) -> None:
    expected: list[SequenceView] = []
    for view in views:  # all of one class and one flow: in the order in which they came
        if view.is_started or not any(leads(row, view) for row in expected):
            expected.append(view)
    assert [row.id for row in plan_step(views, ROOM, {}).rows] == [view.id for view in expected]


def test_many_different_prompts_at_once_are_not_compared_with_each_other() -> None:
    for shared in (0, 3):  # tokens that all begin with
        Text.read, count, size = 0, 256, 16
        views = [
            SequenceView(
                id=id,
                tokens=Text([*range(shared), *range(1000 * id, 1000 * id + 20 - id % 9 - shared)]),
                computed=0,
                pages=[],
                is_started=False,
            )
            for id in range(count)
        ]
        plan = plan_step(views, replace(ROOM, page_size=size), {})
        assert len(plan.rows) == count
        # its own as it asks, and once for each of the ends that others ask for: those of short texts, or a whole page
        assert Text.read <= count * size * (1 + 6)
