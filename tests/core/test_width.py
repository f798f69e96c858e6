"""The width of a plan: so many of its calls run at once, and all of them run."""

from __future__ import annotations

import pytest

from parrot_compat.core.call import Call
from parrot_compat.core.errors import Cancelled
from parrot_compat.core.events import CallFailed, CallFinished, CallPlaced
from parrot_compat.core.plan import Plan
from parrot_compat.core.plan_facts import PlannedCall

from .conftest import World, make_call


def planned(*calls: Call) -> list[PlannedCall]:
    return [PlannedCall(call=call, body={}) for call in calls]


def wide(count: int) -> list[PlannedCall]:
    """Calls side by side, and one that reads them all."""
    sides = [make_call(f"c{n}") for n in range(count)]
    return planned(*sides, make_call("last", "", *(f"out-c{n}" for n in range(count))))


def most_at_once(world: World) -> int:
    running, most = set[str](), 0
    for event in world.of(CallPlaced, CallFinished, CallFailed):
        if isinstance(event, CallPlaced):
            running.add(event.call)
            most = max(most, len(running))
        else:
            running.discard(event.call)  # type: ignore[attr-defined]
    return most


async def settled(plan: Plan) -> list[str]:
    return [event.call async for event in plan.events()]


@pytest.mark.parametrize(("width", "most"), [(1, 1), (3, 3), (50, 7), (None, 7)])
async def test_so_many_calls_of_a_plan_run_at_once_and_all_of_them_run(
    world: World, width: int | None, most: int
) -> None:
    engine = world.engine()
    plan = await world.plan(wide(7), width=width)
    assert len(await settled(plan)) == 8
    assert most_at_once(world) == most and engine.generated == 8


async def test_a_claim_of_a_call_that_waits_for_its_turn_holds(world: World) -> None:
    world.engine()
    plan = await world.plan(wide(4), width=1)
    answer = await plan.claim("c3", make_call("real", "c3"), "run")
    assert answer.task is plan.tasks["c3"] and (await answer.task.finished()).text == "<c3>"
    assert most_at_once(world) == 1


async def test_a_claimed_call_passes_before_those_that_nobody_waits_for(world: World) -> None:
    engine = world.engine()
    engine.stall()
    plan = await world.plan(planned(*map(make_call, "abcd")), width=1, awaited=["a"])
    answer = await plan.claim("d", make_call("real", "d"), "run")
    assert answer.task is plan.tasks["d"]
    engine.resume()
    assert len(await settled(plan)) == 4
    assert [event.call for event in world.of(CallPlaced)] == ["a", "d", "b", "c"]  # type: ignore[attr-defined]
    assert most_at_once(world) == 1


async def test_what_is_awaited_passes_before_what_is_not_and_else_they_pass_as_they_came(world: World) -> None:
    world.engine()
    plan = await world.plan(planned(*map(make_call, "abcdef")), width=1, awaited=["a", "d", "f"])
    assert len(await settled(plan)) == 6
    assert [event.call for event in world.of(CallPlaced)] == ["a", "d", "f", "b", "c", "e"]  # type: ignore[attr-defined]


async def test_a_claim_that_is_left_again_gives_up_its_place(world: World) -> None:
    engine = world.engine()
    engine.stall()
    plan = await world.plan(planned(*map(make_call, "abcd")), width=1, awaited=["a", "b", "c", "d"])
    await plan.claim("d", make_call("real", "d"), "run")
    plan.leave("run")
    engine.resume()
    assert len(await settled(plan)) == 4 and most_at_once(world) == 1


async def test_what_is_cancelled_before_its_turn_makes_room(world: World) -> None:
    engine = world.engine()
    plan = await world.plan(wide(5), width=2)
    plan.tasks["c1"].cancel(Cancelled("not wanted"))
    plan.tasks["c4"].cancel(Cancelled("not wanted"))
    assert len(await settled(plan)) == 6
    assert engine.generated == 3 and most_at_once(world) == 2


async def test_a_plan_that_ends_leaves_nothing_waiting(world: World) -> None:
    engine = world.engine()
    plan = await world.plan(wide(5), width=1)
    await anext(plan.tasks["c0"].chunks())
    receipt = plan.close([])
    assert receipt.cancelled == 5
    assert engine.generated <= 2
