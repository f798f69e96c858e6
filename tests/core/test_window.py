"""A window: so many places, and tenants that take turns at them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from parrot_compat.core.window import Window


async def waiting(window: Window, tenant: str, tokens: int, came: list[str]) -> None:
    await window.take(tenant, tokens)
    came.append(tenant)


async def lined_up(
    window: Window, inputs: Sequence[tuple[str, int]], came: list[str] | None = None
) -> tuple[list[str], list[asyncio.Task[None]]]:
    """In line before a window that is full; the names come in the order of their turns."""
    came = [] if came is None else came
    tasks = [asyncio.create_task(waiting(window, tenant, tokens, came)) for tenant, tokens in inputs]
    await asyncio.sleep(0)
    window.check()
    return came, tasks


async def full(places: int = 1) -> Window:
    window = Window(places)
    for _ in range(places):
        await window.take("first", 1)
    return window


async def all_leave(window: Window, tasks: Sequence[asyncio.Task[None]]) -> None:
    for _ in tasks:
        window.leave()
        await asyncio.sleep(0)
        window.check()


async def test_no_more_have_a_place_than_there_are() -> None:
    window = await full(3)
    came, tasks = await lined_up(window, [("a", 1)] * 4)
    assert not came and window.taken == 3
    window.leave()
    await asyncio.sleep(0)
    assert came == ["a"] and window.taken == 3
    await all_leave(window, tasks[1:])
    for _ in range(3):
        window.leave()
    assert window.taken == 0
    window.check()


async def test_tenants_take_turns_whoever_came_first() -> None:
    window = await full()
    came, tasks = await lined_up(window, [*[("a", 10)] * 4, *[("b", 10)] * 2, ("c", 10)])
    await all_leave(window, tasks)
    assert "".join(came) == "abcabaa"


async def test_turns_go_by_tokens() -> None:
    window = await full()
    came, tasks = await lined_up(window, [*[("long", 100)] * 2, *[("short", 20)] * 8])
    await all_leave(window, tasks)
    assert came == ["long", *["short"] * 5, "long", *["short"] * 3]


async def test_who_comes_later_does_not_wait_until_others_have_had_as_much() -> None:
    window = await full()
    came, tasks = await lined_up(window, [("a", 10)] * 6)
    await all_leave(window, tasks[:4])
    _, later = await lined_up(window, [("b", 10)] * 2, came)
    await all_leave(window, [*tasks[4:], *later])
    assert "".join(came) == "aaaababa"


async def test_of_times_when_nobody_waited_nothing_is_remembered() -> None:
    window = await full()
    _, tasks = await lined_up(window, [("a", 10)] * 6)
    await all_leave(window, tasks)
    window.leave()
    await window.take("a", 10)
    came, tasks = await lined_up(window, [*[("a", 10)] * 2, *[("b", 10)] * 2])
    await all_leave(window, tasks)
    assert "".join(came) == "abab"


async def test_who_leaves_the_line_gets_no_place_and_who_leaves_with_one_hands_it_on() -> None:
    window = await full()
    came, tasks = await lined_up(window, [("a", 1)] * 4)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    window.leave()  # the second has it, and leaves before it knows
    tasks[1].cancel()
    await asyncio.wait(tasks[1:3])
    window.check()
    assert came == ["a"] and tasks[2].done() and not tasks[2].cancelled()
    tasks[3].cancel()
    await asyncio.wait(tasks[3:])
    window.leave()
    assert window.taken == 0
    window.check()
