"""What an open session keeps: of its calls, and of the requests of those that are planned."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from parrot_compat.core import kept
from parrot_compat.core.call import Call, CallId, Reading, Sampling, VariableName
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import AlreadySettled, SessionFull
from parrot_compat.core.kept import size_of_body
from parrot_compat.core.manager import Limits
from parrot_compat.core.output_format import JsonSchema
from parrot_compat.core.plan_facts import PlannedCall
from parrot_compat.core.prompt import ChatPrompt, Constant, Message, TokensPrompt

from .conftest import World, make_call

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{n}",
            "description": "what it does " * 50,
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}},
        },
    }
    for n in range(20)
]


def planned(id: str, body: dict[str, Any]) -> PlannedCall:
    return PlannedCall(call=make_call(id), body=body)


def test_all_that_a_body_holds_counts_but_the_texts_that_its_prompt_has() -> None:
    text = "what is asked " * 1_000
    prompt = ChatPrompt((Message("user", (Constant(text),)),))
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "model": None}
    assert 300 < size_of_body(body, prompt) < 2_000
    assert size_of_body(body, ChatPrompt(())) > len(text)
    for more in ("x" * 10_000, [0] * 1_000, [[]] * 1_000, {str(n): {} for n in range(100)}, ["雪" * 5_000]):
        size = size_of_body(body | {"metadata": more}, prompt)
        assert size > 5_000, more


async def test_bodies_of_planned_calls_are_kept_until_their_plan_ends(world: World) -> None:
    world.limit(Limits(kept_bytes_per_tenant=100_000))
    world.engine().stall()
    session = world.manager.open_session("t")
    plan = await world.manager.plan(session, [planned("a", {"metadata": "x" * 60_000})])
    assert 60_000 < session.kept.size < 62_000
    with pytest.raises(SessionFull, match="keep 60"):
        await world.manager.plan(session, [planned("b", {"metadata": "x" * 60_000})])
    assert len(session.tasks()) == 1
    world.manager.check()
    plan.close()
    assert session.kept.size < 10_000, "the call that was cancelled stays"
    world.manager.check()
    await world.manager.plan(session, [planned("b", {"metadata": "x" * 60_000})])
    await session.close()
    world.manager.check()
    assert world.manager.has_room("t")


async def test_a_plan_that_is_refused_keeps_nothing(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.set("out-a", "is there")
    kept = session.kept.size
    with pytest.raises(AlreadySettled):
        await world.manager.plan(session, [planned("a", {"metadata": "x" * 60_000})])
    assert session.kept.size == kept
    world.manager.check()


def turn(number: int) -> list[dict[str, Any]]:
    """What one turn of an agent adds to its history: what it has called, and what came of that."""
    arguments = json.dumps({"text": f"{number:03} " * 200})
    called = {"id": f"c{number:03}", "type": "function", "function": {"name": "tool_1", "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "fields": {"tool_calls": [called]}},
        {"role": "tool", "content": f"result {number:03} " * 200, "fields": {"tool_call_id": f"c{number:03}"}},
    ]


def request(turns: int) -> ChatPrompt:
    """As it is sent anew with each turn, and read anew."""
    said = [{"role": "system", "content": "You mend code. " * 500, "fields": {}}]
    body = json.loads(json.dumps({"messages": sum(map(turn, range(turns)), said), "tools": TOOLS}))
    return ChatPrompt(
        tuple(
            Message(each["role"], None if each["content"] is None else (Constant(each["content"]),), each["fields"])
            for each in body["messages"]
        ),
        tuple(body["tools"]),
    )


async def test_a_history_that_grows_is_kept_once_and_each_turn_adds_its_own_messages_and_little_else(
    world: World,
) -> None:
    world.engine(script=lambda prompt: "yes", context_tokens=10**6)
    session, sizes = world.manager.open_session(), [0]
    for number in range(41):
        call = Call(id=CallId(f"c{number}"), prompt=request(number), output=VariableName(f"o{number}"))
        await (await session.submit(call)).finished()
        sizes.append(session.kept.size)
    first, *grown = [after - before for before, after in pairwise(sizes)]
    assert 25_000 < first < 80_000, "its tools among them"
    of_a_turn = sum(len(json.dumps(message)) for message in turn(0))
    assert all(of_a_turn < more < of_a_turn + 9_000 for more in grown)
    assert all(after - before == 2 * 8 for before, after in pairwise(grown)), "two places in a tuple"
    world.manager.check()
    await session.close()
    assert world.manager.has_room("", without=0) and session.kept.size == 0


async def test_a_session_for_one_request_measures_nothing_and_another_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[object] = []
    monkeypatch.setattr(kept, "getsizeof", lambda of: measured.append(of) or 100)
    world.engine(context_tokens=10**6)
    brief, other = world.manager.open_session(is_brief=True), world.manager.open_session()
    for session in (brief, other):
        assert not measured
        prompt = request(1)
        call = Call(id=CallId("c"), prompt=prompt, output=VariableName("o"))
        task = await session.submit(call)
        await task.finished()
        assert (task.call is call) == (session is brief) and task.call == call
    assert measured and brief.kept.size == 0 < other.kept.size
    world.manager.check()


async def test_forms_schemas_and_ids_count_once_however_many_calls_have_them(world: World) -> None:
    info = EngineInfo(name="a", model="m", context_tokens=10**6, obeys_formats=True)
    engine = ScriptedEngine(lambda prompt: "{}", info, clock=world.clock)
    world.fleet.add(engine, engine.tokenizer)
    session, ids = world.manager.open_session(), TokensPrompt((65,) * 1_000)
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(200)}}
    sizes = [0]
    for number in range(3):
        calls = [
            Call(
                id=CallId(f"c{number}-{choice}"),
                prompt=ids,
                output=VariableName(f"o{number}-{choice}"),
                sampling=Sampling(format=JsonSchema.of(json.loads(json.dumps(schema)))),
                reading=Reading(schemas=json.loads(json.dumps({"write": schema}))),
            )
            for choice in range(2)
        ]
        for task in await session.submit_all(calls):
            await task.finished()
        sizes.append(session.kept.size)
    first, second, third = [after - before for before, after in pairwise(sizes)]
    assert first > 60_000 > 15_000 > second == third


async def test_texts_that_a_session_has_already_count_in_the_bodies_that_have_them_again(world: World) -> None:
    world.engine(script=lambda prompt: "yes", context_tokens=10**6)
    session = world.manager.open_session()
    sizes: list[int] = []
    for number in range(3):
        text = json.loads(json.dumps("x" * 50_000))
        call = make_call(f"c{number}", text)
        plan = await world.manager.plan(session, [PlannedCall(call=call, body={"prompt": text})])
        await plan.tasks[call.id].finished()
        sizes.append(session.kept.size)
        if number:
            plan.close()
            sizes.append(session.kept.size)
    once, twice, closed, again, over = sizes
    assert 50_000 < once < 60_000 and twice - once > 50_000
    assert closed < twice - 50_000 and again - closed > 50_000 and over < again - 50_000
    world.manager.check()
