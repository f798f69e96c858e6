"""The scheduler: what comes back from a lost engine, what stands behind others that fit nowhere, wide fan-outs."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

import pytest

from parrot_compat.core import scheduler
from parrot_compat.core.errors import EngineLost
from parrot_compat.core.task import TaskState

from .conftest import World, make_call

T = TypeVar("T")


async def test_what_comes_back_from_a_lost_engine_is_as_urgent_as_it_is_by_now(world: World) -> None:
    first, second = world.engine("a"), world.engine("b")
    first.stall()
    second.stall()
    session = world.manager.open_session()
    task = await session.submit(replace(make_call("c"), objective="background"))
    await world.clock.sleep(1)
    assert task.state is TaskState.RUNNING and task.objective.kind == "background"
    with session.expecting("out-c", "latency"):
        world.fleet.lost(world.fleet.member(str(task.engine)), EngineLost("the power went"))
        await world.clock.sleep(1)
        assert task.attempts == 2 and task.objective.kind == "latency" and task.scope.slack_s == 0.0
        world.manager.check()
        first.resume()
        second.resume()
        assert (await task.finished()).text == "<c>"


async def test_what_fits_no_free_engine_keeps_nothing_from_those_behind_it(world: World) -> None:
    world.engine("small", context_tokens=100, max_rows=2)
    world.engine("big", context_tokens=4000, max_rows=2).stall()
    session = world.manager.open_session()
    long = [await session.submit(make_call(f"long{n}", "x" * 500)) for n in range(200)]
    short = await session.submit(make_call("short"))
    async with asyncio.timeout(30):
        assert (await short.finished()).text == "<short>"
    assert sum(task.state is TaskState.READY for task in long) == 198


async def test_a_further_look_is_at_what_may_start_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    place = scheduler.place
    monkeypatch.setattr(scheduler, "place", lambda tasks, engines: (seen.append(len(tasks)), place(tasks, engines))[1])
    world.engine("small", context_tokens=100, max_rows=2)
    world.engine("big", context_tokens=4000, max_rows=2).stall()
    await world.manager.open_session().submit_all([make_call(f"long{n}", "x" * 500) for n in range(600)])
    await world.clock.sleep(1)
    seen.clear()
    short = await world.manager.open_session().submit(make_call("short"))
    assert (await short.finished()).text == "<short>"
    assert max(seen) < 100


async def test_a_task_that_is_over_holds_nothing_of_its_session(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    task = await session.submit(make_call("c"))
    await task.finished()
    await session.close()
    there = weakref.ref(session)
    del session
    gc.collect()
    assert there() is None and task.is_over


async def turns_beside(work: Awaitable[T]) -> tuple[T, int]:
    """How often another task had its turn meanwhile."""
    done, turns = asyncio.ensure_future(work), 0
    while not done.done():
        await asyncio.sleep(0)
        turns += 1
    return await done, turns


async def test_calls_without_number_leave_others_their_turns(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    tasks, turns = await turns_beside(session.submit_all([make_call(f"c{n}") for n in range(400)]))
    assert len(tasks) == 400 and turns >= 400 // 32


async def test_readers_without_number_of_one_text_leave_others_their_turns(world: World) -> None:
    world.engine().stall()
    session = world.manager.open_session()
    session.declare("text")
    tasks = await session.submit_all([make_call(f"c{n}", f"c{n}", "text") for n in range(400)])
    session.set("text", "here")
    ready, turns = [sum(task.rendered is not None for task in tasks)], 0
    while ready[-1] < 400:
        await asyncio.sleep(0)
        ready.append(sum(task.rendered is not None for task in tasks))
        turns += 1
    assert turns >= 400 // 32 - 1 and max(then - now for now, then in itertools.pairwise(ready)) <= 64
