"""Policies: how they are named, what each mechanism does that leaving it out undoes, and that answers are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parrot_compat.core.call import StageLabel
from parrot_compat.core.events import CallPlaced
from parrot_compat.core.lengths import USUAL_TOKENS
from parrot_compat.core.objective import BASE_SLACK_S, Objective
from parrot_compat.core.plan_facts import PlannedCall
from parrot_compat.core.policy import MECHANISMS, Policy

from .conftest import World, make_call

EVERY = ["all", "paper", "plain", *(f"no-{name}" for name in MECHANISMS)]


def test_a_policy_is_a_set_and_what_is_left_out_of_it() -> None:
    assert Policy.read("all") == Policy() and Policy().left_out == ()
    assert Policy.read("no-slack, no-app-order") == Policy(slack=False, app_order=False)
    assert Policy.read("plain").left_out == tuple(MECHANISMS)
    paper = Policy.read("paper")
    assert paper.left_out == ("newcomers", "slack", "lengths", "turns")
    assert Policy.read("paper,no-groups") == replace(paper, groups=False)
    assert Policy.read("all,no-slack,no-slack").left_out == ("slack",)


@pytest.mark.parametrize("text", ["", "slack", "no-magic", "no-slack,all", "paper,plain", "NO-SLACK", "no-app_order"])
def test_what_is_no_part_of_a_policy_says_what_there_is(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"no part of a policy: it is all, paper, plain, and any of no-plans, .*no-turns"
    ):
        Policy.read(text)


async def placed(world: World, policy: str) -> list[str]:
    """An app that began first asks last; both wait for the one row of an engine."""
    world.use(Policy.read(policy))
    world.engine(max_rows=1)
    first, second = world.manager.open_session(), world.manager.open_session()
    running = await second.submit(make_call("running"))
    await world.clock.sleep(0.001)
    late = await second.submit(make_call("late"))
    await world.clock.sleep(0.001)
    early = await first.submit(make_call("early"))
    for task in (running, late, early):
        await task.finished()
    return [event.call for event in world.of(CallPlaced)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("policy", "order"), [("all", ["early", "late"]), ("no-app-order", ["late", "early"])])
async def test_app_order_is_that_the_app_that_began_first_goes_first(
    world: World, policy: str, order: list[str]
) -> None:
    assert await placed(world, policy) == ["running", *order]


@pytest.mark.parametrize(
    ("policy", "slack_s"), [("all", BASE_SLACK_S["background"]), ("no-slack", 0.0), ("no-objectives", 0.0)]
)
async def test_slack_is_that_what_can_wait_does(world: World, policy: str, slack_s: float) -> None:
    world.use(Policy.read(policy))
    world.engine()
    task = await world.manager.open_session().submit(replace(make_call("c"), objective="background"))
    assert task.objective.slack_s == task.scope.slack_s == slack_s
    world.manager.check()


async def stage(world: World, policy: str) -> Objective:
    """Of one of two calls that are alike and that a third reads, and nobody awaits yet."""
    world.use(Policy.read(policy))
    world.engine()
    calls = [make_call("a", "alike a"), make_call("b", "alike b"), make_call("c", "", "out-a", "out-b")]
    tasks = await world.manager.open_session().submit_all(calls)
    world.manager.check()
    assert (tasks[0].group is None) == (not world.manager.policy.groups)
    assert tasks[0].group == tasks[1].group
    return tasks[0].objective


async def test_objectives_are_that_only_the_last_finish_of_a_stage_counts(world: World) -> None:
    deduced = await stage(world, "all")
    assert deduced.kind == "throughput" and deduced.group is not None


async def test_without_objectives_every_call_is_latency_bound_and_alone(world: World) -> None:
    assert await stage(world, "no-objectives,no-groups") == Objective()


async def test_without_groups_the_objective_stays(world: World) -> None:
    deduced = await stage(world, "no-groups")
    assert (deduced.kind, deduced.group) == ("throughput", None)


@pytest.mark.parametrize(("policy", "goes_first"), [("all", True), ("no-newcomers", False), ("no-app-order", False)])
async def test_newcomers_are_that_the_only_call_of_an_app_goes_before_an_older_apps_calls(
    world: World, policy: str, goes_first: bool
) -> None:
    world.use(Policy.read(policy))
    world.engine(max_rows=1).stall()
    app = world.manager.open_session()
    blocker = await app.submit(make_call("blocker"))
    await world.clock.sleep(5)
    maps = await app.submit_all([make_call(f"map{n}") for n in range(4)])
    await world.clock.sleep(5)
    chat = await world.manager.open_session().submit(make_call("chat"))
    engine = world.manager.fleet.member("a").engine
    engine.resume()  # type: ignore[attr-defined]  # it is a scripted one
    for task in (chat, *maps):
        await task.finished()
    placed = [event.call for event in world.of(CallPlaced) if isinstance(event, CallPlaced)]
    assert (placed.index("chat") < placed.index("map0")) is goes_first and blocker.is_over


async def test_the_choices_of_one_request_are_newcomers_and_a_second_call_and_a_batch_are_none(world: World) -> None:
    world.engine(max_rows=1).stall()
    first, many, choices = (world.manager.open_session() for _ in range(3))
    calls = [await first.submit(make_call("a")), await first.submit(make_call("b"))]
    calls += await many.submit_all([make_call("c"), make_call("d")])
    assert [task.is_newcomer for task in calls] == [True, False, False, False]
    same = [make_call(f"choice{number}", "the same question") for number in range(2)]
    assert all(task.is_newcomer for task in await choices.submit_all(same))
    labelled = replace(make_call("e"), stage=StageLabel(name="s", size=2))
    assert not (await world.manager.open_session().submit(labelled)).is_newcomer
    for session in world.manager.sessions():
        session.cancel()


@pytest.mark.parametrize(("policy", "is_learnt"), [("all", True), ("no-lengths", False)])
async def test_lengths_are_that_answers_teach_how_long_the_next_will_be(
    world: World, policy: str, is_learnt: bool
) -> None:
    world.use(Policy.read(policy))
    world.engine()
    session = world.manager.open_session()
    told = await (await session.submit(replace(make_call("one", "hi"), function="f"))).finished()
    following = await session.submit(replace(make_call("two", "hi"), function="f"))
    assert following.expected_tokens == (told.usage.output_tokens if is_learnt else USUAL_TOKENS)


@pytest.mark.parametrize(("policy", "flows"), [("all", 2), ("no-turns", 1)])
async def test_turns_are_that_engines_tell_the_apps_of_a_tenant_apart(world: World, policy: str, flows: int) -> None:
    world.use(Policy.read(policy))
    world.engine()
    sessions = [world.manager.open_session("tenant") for _ in range(2)]
    tasks = [await session.submit(make_call("c")) for session in sessions]
    assert len({task.scope.flow for task in tasks}) == flows
    assert all(task.scope.namespace == "tenant" for task in tasks)


async def answers(world: World, policy: str) -> dict[str, str]:
    """What two apps are told that run side by side, a plan each: four calls, one over all of them, one over that."""
    world.use(Policy.read(policy))
    world.engine(max_rows=2)
    told: dict[str, str] = {}
    plans = []
    for app in ("one", "two"):
        sides = [make_call(f"{app}-{n}", f"{app} part {n}", max_tokens=9) for n in range(4)]
        whole = make_call(f"{app}-all", "of", *(f"out-{app}-{n}" for n in range(4)))
        last = replace(make_call(f"{app}-last", "so", f"out-{app}-all"), objective="latency")
        planned = [PlannedCall(call=replace(call, function=app), body={}) for call in (*sides, whole, last)]
        plans.append(await world.plan(planned, awaited=[f"{app}-last"]))
    for plan in plans:
        told |= {event.call: (await event.task.finished()).text async for event in plan.events()}
    world.manager.check()
    return told


@pytest.mark.parametrize("policy", EVERY)
async def test_every_policy_gives_the_same_answers(world: World, policy: str) -> None:
    told = await answers(world, policy)
    parts = {f"{app}-{n}": f"<{app} part {n}>"[:9] for app in ("one", "two") for n in range(4)}
    assert {call: text for call, text in told.items() if call in parts} == parts
    for app in ("one", "two"):
        whole = f"<of {' '.join(parts[f'{app}-{n}'] for n in range(4))}>"
        assert (told[f"{app}-all"], told[f"{app}-last"]) == (whole, f"<so {whole}>")
