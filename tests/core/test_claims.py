"""What a claim changes of the planned call that it takes."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Literal

import pytest

from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import BadPrompt, Cancelled, EngineError
from parrot_compat.core.prefix import token_blocks
from parrot_compat.core.prompt import (
    Chat,
    ChatPrompt,
    Constant,
    Content,
    Message,
    Prompt,
    Text,
    TextPrompt,
    Tokens,
    TokensPrompt,
)
from parrot_compat.core.rendering import Rendered, Renderer
from parrot_compat.core.session import Session
from parrot_compat.core.task import Task, TaskState
from parrot_compat.core.twin import Lookalikes, RealCall, Twins, says_the_same

from .conftest import World, echo, make_call
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
    later, _ = await world.manager.open_session("t").submit_all([make_call("later"), make_call("later too")])
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


@pytest.mark.parametrize("ends", ["plan", "session"])
async def test_a_claimant_whose_prompt_turns_out_wrong_once_the_plan_has_ended_hears_that_and_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, ends: Literal["plan", "session"]
) -> None:
    engine, gate = world.engine(context_tokens=100_000), threading.Event()
    encode = engine.tokenizer.encode

    def wrong_in_the_end(content: Content) -> tuple[int, ...]:
        if isinstance(content, Text) and content.text.startswith("wrong"):
            gate.wait(60)
            raise BadPrompt("there is no such word")
        return encode(content)

    monkeypatch.setattr(engine.tokenizer, "encode", wrong_in_the_end)
    engine.stall()
    plan = await world.plan(planned(make_call("a")))
    needed = asyncio.create_task(plan.session.read("out-a"))
    claiming = asyncio.create_task(plan.claim("a", real("wrong" + "x" * 10_000), "run"))
    await asyncio.sleep(0)
    if ends == "plan":
        assert plan.close().cancelled == 0
    else:
        await plan.session.close()
    gate.set()
    with pytest.raises(BadPrompt, match="no such word"):
        await claiming
    engine.resume()
    if ends == "plan":
        assert await needed == "<a>"
    else:
        with pytest.raises(Cancelled):
            await needed


def test_prompts_that_begin_alike_are_told_apart_by_their_ends() -> None:
    compared = 0

    class Ids(tuple[int, ...]):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return tuple.__eq__(self, other)

        __hash__ = tuple.__hash__

    def rendered(*last: int) -> Rendered:
        ids = Ids((*range(1000), *last))
        return Rendered(content=Tokens(ids), ids=ids, prompt_tokens=len(ids), blocks=token_blocks("t", ids))

    real = rendered(*range(7))
    assert not any(says_the_same(rendered(*range(n, n + 7)), real) for n in range(1, 100))
    assert not says_the_same(rendered(1), real) and compared == 0
    assert says_the_same(rendered(*range(7)), real) and compared == 1


async def test_a_claim_that_is_refused_is_compared_with_what_looks_like_it_and_not_with_the_whole_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.engine().stall()
    plan = await world.plan(planned(*(make_call(f"m{n}") for n in range(200)), make_call("late", "x", "out-m0")))
    compared: list[str] = []
    difference = Twins.difference

    def counted(twins: Twins, task: Task, claimant: RealCall) -> str | None:
        compared.append(task.call.id)
        return difference(twins, task, claimant)

    monkeypatch.setattr(Twins, "difference", counted)
    for number in range(200):
        assert (await plan.claim(f"m{number}", real(f"else {number}"), f"run-{number}")).task is None
    assert compared == [f"m{number}" for number in range(200)]


@pytest.mark.parametrize("takes", ["tokens", "text"])
async def test_all_that_says_the_same_is_found_among_the_lookalikes_in_the_order_of_the_plan(
    world: World, takes: Literal["tokens", "text"]
) -> None:
    engine = ScriptedEngine(echo, EngineInfo(name="a", model="m", context_tokens=4096, takes=takes), clock=world.clock)
    world.fleet.add(engine, engine.tokenizer if takes == "tokens" else None)
    engine.stall()
    session, chat = world.manager.open_session(), ({"role": "user", "content": "x" * 100},)
    contents: list[Content] = [Text("x"), Text("x" * 100), Text("y" * 99), Tokens((120,) * 100), Chat(chat)]
    contents += [Chat((*chat, *chat)), Chat(chat, ({"n": 1},)), Chat(chat, ({"n": 2},)), Chat(())]
    tasks = [
        await session.submit(Call(id=CallId(f"c{n}"), prompt=prompt_of(content), output=VariableName(f"o{n}")))
        for n, content in enumerate(contents * 3)
    ]
    renderer = Renderer(world.fleet)
    lookalikes = Lookalikes(tasks)
    for content in contents:
        claimed = renderer.render(content, "m", "")
        without_ids = replace(claimed, ids=None)
        for each in (claimed, without_ids):
            same = [task for task in tasks if task.rendered is not None and says_the_same(task.rendered, each)]
            found = lookalikes.of(each)
            assert len(same) >= 3 and [task for task in found if task in same] == same
            assert found == [task for task in tasks if task in found]
    engine.resume()
    await asyncio.gather(*(task.finished() for task in tasks))


def prompt_of(content: Content) -> Prompt:
    match content:
        case Text(text):
            return TextPrompt((Constant(text),))
        case Tokens(ids):
            return TokensPrompt(ids)
        case Chat(messages, tools):
            said = tuple(Message.of(message["role"], message["content"]) for message in messages)
            return ChatPrompt(said, tools)
