"""What a claim changes of the planned call that it takes."""

from __future__ import annotations

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
