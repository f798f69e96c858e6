"""What a claim changes of the planned call that it takes."""

from __future__ import annotations

import pytest

from parrot_compat.core.call import CallId
from parrot_compat.core.errors import EngineError
from parrot_compat.core.session import Session
from parrot_compat.core.task import TaskState

from .conftest import World, make_call
from .test_plans import planned, real


async def test_a_claimed_call_is_as_urgent_as_the_request_that_waits_for_it(world: World) -> None:
    engine = world.engine(max_rows=1)
    engine.stall()
    blocker = await world.manager.open_session().submit(make_call("blocker"))
    plan = await world.plan(planned(make_call("x"), make_call("y")), awaited=["y"])
    assert plan.tasks["x"].objective.kind == "background"
    answer = await plan.claim("x", real("x"), "run")
    assert answer.task is plan.tasks["x"] and answer.task.objective.kind == "latency"
    later = await world.manager.open_session().submit(make_call("later"))
    engine.resume()
    await answer.task.finished()
    assert blocker.is_over and not later.is_over
    plan.close(["y"])
    again = await world.plan(planned(make_call("x"), make_call("y")), awaited=["y"])
    engine.stall()
    assert (await again.claim("x", real("x"), "other")).task is again.tasks["x"]
    again.leave("other")
    assert again.tasks["x"].state is TaskState.CANCELLED
    engine.resume()
    again.close()


async def test_a_call_that_differs_from_its_plan_costs_no_other_branch_its_urgency(world: World) -> None:
    engine = world.engine(max_rows=1)
    engine.stall()
    blocker = await world.manager.open_session().submit(make_call("blocker"))
    maps = [make_call(f"m{n}") for n in range(8)]
    plan = await world.plan(planned(*maps, make_call("r", "r", *(each.output for each in maps))), awaited=["r"])
    refused = await plan.claim("m0", real("something else"), "run")
    assert refused.task is None and plan.tasks["r"].is_over
    others = [plan.tasks[f"m{n}"] for n in range(1, 8)]
    assert {task.objective.kind for task in others} == {"latency"} and plan.tasks["m0"].is_over
    later = await world.manager.open_session("t").submit(make_call("later"))
    engine.resume()
    await others[-1].finished()
    assert blocker.is_over and not later.is_over
    assert plan.close([task.call.id for task in others]).cancelled == 0


async def test_what_is_wanted_for_its_push_alone_ends_with_its_claimant_or_its_plan(world: World) -> None:
    engine = world.engine(max_rows=1)
    engine.stall()
    maps = [make_call(f"m{n}") for n in range(3)]
    plan = await world.plan(planned(*maps, make_call("r", "r", *(each.output for each in maps))), awaited=["r"])
    await plan.claim("m0", real("something else"), "run")
    assert (await plan.claim("m1", real("m1"), "other")).task is plan.tasks["m1"]
    plan.leave("other")
    assert [plan.tasks[call].is_over for call in ("m0", "m1", "m2", "r")] == [True, True, False, True]
    plan.close()
    assert plan.tasks["m2"].is_over
    engine.resume()


async def test_a_wide_stage_that_the_app_does_not_follow_costs_each_call_a_look_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.engine().stall()
    maps = [make_call(f"m{n}") for n in range(100)]
    plan = await world.plan(planned(*maps, make_call("r", "r", *(each.output for each in maps))), awaited=["r"])
    delivered: list[str] = []
    deliver = Session.deliver

    def counted(session: Session, call: CallId, is_delivered: bool) -> None:
        delivered.append(call)
        deliver(session, call, is_delivered)

    monkeypatch.setattr(Session, "deliver", counted)
    for number in range(100):
        refused = await plan.claim(f"m{number}", real("something else"), f"run-{number}")
        assert refused.task is None
    assert delivered == [f"m{number}" for number in range(1, 100)]
    assert all(task.is_over for task in plan.tasks.values())


async def test_where_a_planned_call_has_failed_the_refused_claim_keeps_the_other_branches_urgent(world: World) -> None:
    engine = world.engine(max_rows=1)
    engine.fail_next(EngineError("out of paper"))
    maps = [make_call(f"m{n}") for n in range(3)]
    plan = await world.plan(planned(*maps, make_call("r", "r", *(each.output for each in maps))), awaited=["r"])
    failed = plan.tasks["m0"]
    with pytest.raises(EngineError):
        await failed.output.get()
    engine.stall()
    assert plan.tasks["r"].is_over and plan.tasks["m2"].objective.kind == "background"
    assert (await plan.claim("m0", real("m0"), "run")).task is None
    assert plan.tasks["m2"].objective.kind == "latency"
