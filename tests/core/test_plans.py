"""Plans and claims: calls that run ahead of their app, and never change what it computes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace

import pytest

from parrot_compat.core.call import Call, Sampling
from parrot_compat.core.errors import (
    BadPrompt,
    CallerError,
    Cancelled,
    CycleInGraph,
    EngineError,
    TooManyCalls,
    UnknownPlan,
    UnknownSession,
    UnknownVariable,
    UpstreamFailed,
)
from parrot_compat.core.events import PlanEnded
from parrot_compat.core.manager import Limits
from parrot_compat.core.plan import Plan
from parrot_compat.core.plan_facts import PlannedCall, PlanReceipt, Settled
from parrot_compat.core.prompt import Constant, Text, TextPrompt, TokensPrompt
from parrot_compat.core.session import Session
from parrot_compat.core.task import TaskState

from .conftest import World, make_call


def planned(*calls: Call) -> list[PlannedCall]:
    return [PlannedCall(call=call, body={"of": call.id}) for call in calls]


def chain(length: int = 3) -> list[PlannedCall]:
    """c0, then each reads the one before."""
    return planned(*(make_call(f"c{n}", f"c{n}", *([f"out-c{n - 1}"] if n else [])) for n in range(length)))


def real(text: str, **sampling: object) -> Call:
    """The app's own call: its whole prompt as plain text."""
    call = make_call("real", **sampling)
    return replace(call, prompt=TextPrompt((Constant(text),)))


async def settled_calls(plan: Plan) -> list[Settled]:
    return [settled async for settled in plan.events()]


async def test_a_plan_is_pushed_in_order_of_settling_with_what_each_call_ran_with(world: World) -> None:
    world.engine()
    plan = await world.plan(chain())
    events = await settled_calls(plan)
    assert [(event.call, event.content) for event in events] == [
        ("c0", Text("c0")),
        ("c1", Text("c1 <c0>")),
        ("c2", Text("c2 <c1 <c0>>")),
    ]
    assert [event.body for event in events] == [{"of": "c0"}, {"of": "c1"}, {"of": "c2"}]
    assert events == await settled_calls(plan)  # a late reader gets all
    assert plan.close(["c0", "c1", "c2"]) == PlanReceipt(taken=3, claimed=0, cancelled=0, wasted_tokens=0)


async def test_a_claim_takes_the_planned_call_and_its_output(world: World) -> None:
    engine = world.engine()
    plan = await world.plan(chain(2))
    await settled_calls(plan)
    answer = await plan.claim("c1", real("c1 <c0>"), "run-1")
    assert answer.reason is None and answer.call == "c1" and answer.task is plan.tasks["c1"]
    assert (await answer.task.finished()).text == "<c1 <c0>>" and engine.generated == 2
    assert plan.close(["c0"]) == PlanReceipt(taken=1, claimed=1, cancelled=0, wasted_tokens=0)


async def test_a_claim_of_a_running_call_streams_what_is_there_and_then_live(world: World) -> None:
    engine = world.engine()
    plan = await world.plan(chain(1))
    await anext(plan.tasks["c0"].chunks())
    engine.stall()
    answer = await plan.claim("c0", real("c0"), "run-1")
    assert answer.task is not None
    engine.resume()
    assert "".join([chunk.text async for chunk in answer.task.chunks()]) == "<c0>"


async def test_the_same_nonce_gets_the_same_output_again_and_another_does_not(world: World) -> None:
    world.engine()
    plan = await world.plan(chain(1))
    first = await plan.claim("c0", real("c0"), "run-1")
    again = await plan.claim("c0", real("c0"), "run-1")
    retry = await plan.claim("c0", real("c0"), "run-2")
    assert first.task is again.task is not None
    assert retry.task is None and retry.reason == "another run has taken it"
    assert not plan.tasks["c0"].is_over  # the claim that holds is not disturbed


async def test_equal_prompts_are_taken_once_each_in_plan_order(world: World) -> None:
    world.engine()
    plan = await world.plan(planned(*(make_call(f"s{n}", "same") for n in range(5))))
    taken = [(await plan.claim("s0", real("same"), f"run-{n}")).call for n in range(6)]
    assert taken == ["s0", "s1", "s2", "s3", "s4", None]


@pytest.mark.parametrize(
    ("claimant", "choices", "reason"),
    [
        (real("c0!"), 1, "the prompt differs"),
        (real("c0", temperature=0.5), 1, "the sampling parameters differ"),
        (real("c0", max_tokens=5), 1, "the sampling parameters differ"),
        (real("c0", stop=("x",)), 1, "the sampling parameters differ"),
        (real("c0", seed=1), 1, "the sampling parameters differ"),
        (replace(real("c0"), model="n"), 1, "runs on model 'm'"),
        (real("c0"), 2, "n is not 1"),
    ],
)
async def test_what_is_not_equal_is_not_claimed_and_ends_the_twin_and_what_hangs_on_it(
    world: World, claimant: Call, choices: int, reason: str
) -> None:
    world.engine("a", model="m").stall()
    world.engine("b", model="n")
    plan = await world.plan([*chain(3), *planned(make_call("other"))])
    answer = await plan.claim("c0", claimant, "run-1", choices=choices)
    assert answer.task is None and answer.reason is not None and reason in answer.reason
    assert plan.tasks["c0"].state is TaskState.CANCELLED
    assert all(plan.tasks[call].is_over for call in ("c1", "c2")) and not plan.tasks["other"].is_over
    world.manager.check()


async def test_a_twin_that_has_finished_takes_with_it_what_hangs_on_it(world: World) -> None:
    engine = world.engine()
    plan = await world.plan(chain(3))
    await plan.tasks["c0"].finished()
    engine.stall()
    await plan.claim("c0", real("something else"), "run-1")
    assert plan.tasks["c1"].state is TaskState.CANCELLED
    assert isinstance(plan.tasks["c2"].failure, Cancelled | UpstreamFailed)


async def test_what_hangs_on_a_refused_twin_stays_where_the_app_has_claimed_it(world: World) -> None:
    engine = world.engine()
    plan = await world.plan(chain(3))
    await plan.tasks["c0"].finished()
    engine.stall()
    assert (await plan.claim("c1", real("c1 <c0>"), "run-1")).task is not None
    await plan.claim("c0", real("something else"), "run-2")
    engine.resume()
    assert (await plan.tasks["c2"].finished()).text == "<c2 <c1 <c0>>>"


async def test_a_refused_twin_goes_on_where_a_call_outside_of_the_plan_reads_it(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session(tenant="t")
    plan = await world.manager.plan(session, [*chain(3), *planned(make_call("side", "side", "out-c0"))])
    reader = await session.submit(make_call("reader", "r", "out-c1"))
    engine.stall()
    await plan.claim("c0", real("something else"), "run-1")
    assert plan.tasks["c2"].is_over and plan.tasks["side"].is_over, "nobody reads these"
    engine.resume()
    assert (await reader.finished()).text == "<r <c1 <c0>>>"


async def test_defaults_that_are_spelled_out_are_equal_to_those_left_out(world: World) -> None:
    world.engine()
    plan = await world.plan(chain(1))
    assert (await plan.claim("c0", real("c0", temperature=1.0, top_p=1.0), "run-1")).task is not None


async def test_an_unseeded_sample_is_claimed_whatever_its_temperature(world: World) -> None:
    world.engine()
    plan = await world.plan(planned(make_call("c0", temperature=0.9)))
    assert (await plan.claim("c0", real("c0", temperature=0.9), "run-1")).task is not None


async def test_a_call_that_waits_for_its_inputs_is_not_claimed(world: World) -> None:
    world.engine().stall()
    plan = await world.plan(chain(2))
    answer = await plan.claim("c1", real("c1 <c0>"), "run-1")
    assert answer.reason == "the planned call still waits for its inputs"


async def test_a_claim_waits_for_a_large_prompt_that_is_being_encoded(world: World) -> None:
    world.engine(context_tokens=2_000_000)
    session = world.manager.open_session("t")
    session.declare("book")
    plan = await world.manager.plan(session, planned(make_call("c", "c", "book", max_tokens=4)))
    session.set("book", "x" * 1_000_000)
    assert plan.tasks["c"].rendered is None
    answer = await plan.claim("c", real("c " + "x" * 1_000_000, max_tokens=4), "run-1")
    assert answer.task is plan.tasks["c"]


async def test_a_planned_call_that_failed_is_not_claimed(world: World) -> None:
    engine = world.engine()
    engine.fail_next(EngineError("out of paper"))
    plan = await world.plan(chain(2))
    events = await settled_calls(plan)
    assert [type(event.task.failure) for event in events] == [EngineError, UpstreamFailed]
    answer = await plan.claim("c0", real("c0"), "run-1")
    assert answer.task is None and "out of paper" in str(answer.reason)


async def test_a_claimant_whose_own_prompt_is_wrong_hears_that(world: World) -> None:
    world.engine().stall()
    plan = await world.plan(chain(2))
    with pytest.raises(BadPrompt):
        await plan.claim("c0", replace(real(""), prompt=TokensPrompt((-1,))), "run-1")
    assert plan.tasks["c0"].is_over and plan.tasks["c1"].is_over


async def test_a_claimant_may_say_what_it_reads_by_reference(world: World) -> None:
    world.engine()
    session = world.manager.open_session("t")
    session.set("page", "text")
    plan = await world.manager.plan(session, planned(make_call("c", "c", "page"), make_call("d", "d", "out-c")))
    assert (await plan.claim("c", make_call("real", "c", "page"), "run-1")).task is plan.tasks["c"]
    session.declare("unknown yet")
    refused = await plan.claim("d", make_call("real", "d", "unknown yet"), "run-2")
    assert refused.reason == "the claimant itself waits for its inputs"


async def test_calls_and_plans_that_are_not_there_are_not_claimed(world: World) -> None:
    world.engine()
    plan = await world.plan(chain(1))
    assert (await plan.claim("nobody", real("c0"), "run-1")).reason == "the plan has no such call"
    plan.close()
    assert (await plan.claim("c0", real("c0"), "run-1")).reason == "the plan has ended"


# ---- leaving, closing, expiring ------------------------------------------------------------------------------------


async def test_a_claimant_that_leaves_ends_the_call_unless_something_reads_it(world: World) -> None:
    world.engine().stall()
    plan = await world.plan([*chain(2), *planned(make_call("alone"))])
    assert (await plan.claim("c0", real("c0"), "run-1")).task is not None
    assert (await plan.claim("alone", real("alone"), "run-2")).task is not None
    plan.leave("run-1")
    plan.leave("run-2")
    plan.leave("run-3")
    assert not plan.tasks["c0"].is_over and plan.tasks["alone"].state is TaskState.CANCELLED


async def test_closing_cancels_what_nobody_took_and_counts_what_was_wasted(world: World) -> None:
    engine = world.engine()
    plan = await world.plan([*chain(2), *planned(make_call("wasted"), make_call("running", "r" * 50))])
    for call in ("c0", "c1", "wasted"):
        await plan.tasks[call].finished()
    await anext(plan.tasks["running"].chunks())
    engine.stall()
    drawn = plan.tasks["running"].drawn_tokens
    assert (await plan.claim("c1", real("c1 <c0>"), "run-1")).task is not None
    receipt = plan.close(["c0", "unheard of"])
    assert receipt == PlanReceipt(taken=1, claimed=1, cancelled=1, wasted_tokens=len("<wasted>") + drawn)
    assert plan.close(["wasted"]) is receipt is plan.receipt
    assert world.manager.close_plan("t", plan.id) is receipt
    with pytest.raises(UnknownPlan):
        world.manager.close_plan("other", plan.id)
    (event,) = world.of(PlanEnded)
    assert isinstance(event, PlanEnded) and event.wasted_tokens == receipt.wasted_tokens and event.calls == 4


async def test_closing_cancels_what_its_claimant_has_left(world: World) -> None:
    world.engine().stall()
    plan = await world.plan(chain(1), awaited=["c0"])
    for leaves in (True, False):
        assert (await plan.claim("c0", real("c0"), "run-1")).task is not None
        if leaves:
            plan.leave("run-1")
            assert not plan.tasks["c0"].is_over, "the app may come again while the plan lasts"
    plan.leave("run-1")
    assert plan.close().cancelled == 1
    assert plan.tasks["c0"].state is TaskState.CANCELLED


async def test_closing_leaves_alone_what_a_claimant_has_come_back_for(world: World) -> None:
    engine = world.engine()
    engine.stall()
    plan = await world.plan(chain(1), awaited=["c0"])
    await plan.claim("c0", real("c0"), "run-1")
    plan.leave("run-1")
    again = await plan.claim("c0", real("c0"), "run-1")
    assert plan.close().cancelled == 0
    engine.resume()
    assert again.task is not None and (await again.task.finished()).text == "<c0>"


async def test_closing_leaves_alone_what_was_claimed_and_what_others_need(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session("t")
    engine.stall()
    plan = await world.manager.plan(session, planned(make_call("a"), make_call("b"), make_call("c"), make_call("d")))
    reader = await session.submit(make_call("reader", "r", "out-a"))
    assert (await plan.claim("b", real("b"), "run-1")).task is not None
    waiting = asyncio.create_task(session.read("out-c"))
    await asyncio.sleep(0)
    receipt = plan.close()
    assert (receipt.claimed, receipt.cancelled) == (1, 1) and plan.tasks["d"].state is TaskState.CANCELLED
    engine.resume()
    assert (await reader.finished()).text == "<r <a>>" and await waiting == "<c>"
    assert (await plan.tasks["b"].finished()).text == "<b>"


async def test_the_push_ends_with_the_plan(world: World) -> None:
    world.engine().stall()
    plan = await world.plan(chain())
    push = asyncio.create_task(settled_calls(plan))
    await asyncio.sleep(0)
    plan.close()
    assert await push == []


async def test_a_plan_expires_when_nothing_of_it_lives(world: World) -> None:
    world.engine()
    plan = await world.plan(chain(3), ttl_s=30)
    begun_s = world.clock.now()
    await settled_calls(plan)
    finished_s = world.clock.now()
    await world.clock.sleep(29)
    assert not plan.is_over
    await world.clock.sleep(2)
    assert plan.is_over and plan.receipt is not None and plan.receipt.wasted_tokens > 0 and finished_s > begun_s
    with pytest.raises(UnknownPlan):
        world.manager.find_plan("t", plan_id=plan.id)
    with pytest.raises(UnknownSession):
        world.manager.session(plan.session.id, "t")


async def test_an_open_request_and_a_running_call_are_life(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session("t", ttl_s=10)
    plan = await world.manager.plan(session, chain(1), ttl_s=10)
    engine.stall()
    await world.clock.sleep(100)  # its call is on the engine
    engine.resume()
    await plan.tasks["c0"].finished()
    with session.life.held(), plan.life.held():  # its pushes are read
        await world.clock.sleep(100)
    await world.clock.sleep(9)
    assert not plan.is_over
    assert (await plan.claim("c0", real("c0"), "run-1")).task is not None
    world.manager.session(session.id, "t")  # somebody looks in
    await world.clock.sleep(9)
    assert not plan.is_over and not session.is_closed
    await world.clock.sleep(2)
    assert plan.is_over and session.is_closed


async def test_a_plan_that_was_left_open_ends_however_busy_its_session_is(world: World) -> None:
    world.limit(Limits(planned_calls_per_tenant=3))
    world.engine()
    session = world.manager.open_session("t", ttl_s=600)
    plan = await world.manager.plan(session, chain(3), awaited=["c2"], ttl_s=30)
    await settled_calls(plan)
    for number in range(5):
        world.manager.session(session.id, "t")
        await (await session.submit(make_call(f"another {number}"))).finished()
        await world.clock.sleep(10)
    assert plan.is_over and not session.is_closed
    await world.manager.plan(session, planned(*(make_call(f"n{n}") for n in range(3))))
    world.manager.check()


async def test_a_session_that_ends_ends_its_plans(world: World) -> None:
    world.engine().stall()
    session = world.manager.open_session("t")
    plan = await world.manager.plan(session, chain())
    await session.close()
    assert plan.receipt == PlanReceipt(taken=0, claimed=0, cancelled=3, wasted_tokens=0)
    world.manager.check()


# ---- what a plan asks for ------------------------------------------------------------------------------------------


async def test_what_a_plan_awaits_is_quick_and_the_rest_runs_in_slack(world: World) -> None:
    world.engine().stall()
    calls = [*chain(2), *planned(make_call("extra"))]
    plan = await world.plan(calls, awaited=["c1"])
    assert [plan.tasks[call].objective.kind for call in ("c0", "c1", "extra")] == ["latency", "latency", "background"]
    plan.close()
    world.manager.check()


async def test_a_claim_does_not_change_what_a_call_with_consumers_is_quick_at(world: World) -> None:
    world.engine(max_rows=1).stall()
    maps = [make_call(f"m{n}") for n in range(3)]
    calls = planned(*maps, make_call("r", "r", *(call.output for call in maps)))
    plan = await world.plan(calls, awaited=["r"])
    await plan.claim("m2", real("m2"), "run-1")
    assert [task.objective.kind for task in plan.tasks.values()] == ["throughput"] * 3 + ["latency"]
    assert len({task.group for task in list(plan.tasks.values())[:3]}) == 1


async def test_plans_are_found_by_their_tenant_only(world: World) -> None:
    world.engine()
    plan = await world.plan(chain())
    assert world.manager.find_plan("t", plan_id=plan.id) is plan is world.manager.find_plan("t", call_id="c1")
    for asked in ({"plan_id": plan.id}, {"call_id": "c1"}):
        with pytest.raises(UnknownPlan):
            world.manager.find_plan("other", **asked)
    newer = await world.plan(chain())
    assert world.manager.find_plan("t", call_id="c1") is newer
    newer.close()
    assert world.manager.find_plan("t", call_id="c1") is plan


@pytest.mark.parametrize(
    ("calls", "awaited", "error"),
    [
        (planned(make_call("a", "a", "out-b"), make_call("b", "b", "out-a")), (), CycleInGraph),
        (planned(make_call("a", "a", "nobody")), (), UnknownVariable),
        (planned(make_call("a"), make_call("a", output="x")), (), CallerError),
        (planned(make_call("a")), ("b",), UnknownVariable),
    ],
)
async def test_a_plan_that_is_wrong_leaves_nothing_behind(
    world: World, calls: list[PlannedCall], awaited: tuple[str, ...], error: type[CallerError]
) -> None:
    world.engine()
    session = world.manager.open_session("t")
    with pytest.raises(error):
        await world.manager.plan(session, calls, awaited=awaited)
    assert session.tasks() == () and world.manager.open_calls == 0
    world.manager.check()


async def test_a_tenant_plans_only_so_many_calls_until_its_plans_end(world: World) -> None:
    world.limit(Limits(planned_calls_per_tenant=4))
    world.engine()
    plan = await world.plan(chain(3))
    await settled_calls(plan)
    with pytest.raises(TooManyCalls, match="2 more calls would make 5 planned for this tenant; the limit is 4"):
        await world.plan(chain(2))
    await world.plan(chain(2), tenant="other")
    plan.close()
    await world.plan(chain(4))
    world.manager.check()


async def test_nothing_is_kept_of_plans_that_have_ended(world: World) -> None:
    world.engine()
    kept: list[weakref.ref[Plan | Session]] = []
    for _ in range(20):
        plan = await world.plan(chain(), awaited=["c2"])
        await settled_calls(plan)
        plan.close()
        kept += [weakref.ref(plan), weakref.ref(plan.session)]
    del plan
    world.events.clear()
    await world.clock.sleep(31)  # the time of their sessions
    gc.collect()
    assert [ref() for ref in kept if ref() is not None] == []


async def test_a_session_in_use_keeps_nothing_of_plans_that_have_ended(world: World) -> None:
    world.engine()
    session = world.manager.open_session("t", ttl_s=600)
    with session.life.held():
        kept = []
        for number in range(20):
            plan = await world.manager.plan(session, planned(make_call(f"c{number}")), awaited=[f"c{number}"])
            await settled_calls(plan)
            assert world.manager.close_plan("t", plan.id) is world.manager.close_plan("t", plan.id)
            kept.append(weakref.ref(plan))
        assert not session._at_close
        plan_id = plan.id
        del plan
        await world.clock.sleep(1)
        gc.collect()
        assert [ref() for ref in kept if ref() is not None] == []
        await world.clock.sleep(31)
        with pytest.raises(UnknownPlan):
            world.manager.close_plan("t", plan_id)


async def test_a_text_engine_compares_contents_and_asked_parameters(world: World) -> None:
    from parrot_compat.core.engine import EngineInfo
    from parrot_compat.core.engines.scripted import ScriptedEngine

    info = EngineInfo(name="text", model="m", context_tokens=512, takes="text")
    world.fleet.add(ScriptedEngine({"": "said"}, info, clock=world.clock))
    plan = await world.plan([*chain(1), *planned(make_call("d0"))])
    assert (await plan.claim("c0", real("c0"), "run-1")).task is not None
    assert (await plan.claim("d0", real("d0", temperature=1.0), "run-2")).reason is not None  # its default may differ
    assert plan.tasks["d0"].call.sampling == Sampling()
