"""What is told of a task: that it has begun, once, and what it came to, also where it came to nothing."""

from __future__ import annotations

import pytest

from parrot_compat.core.call import Usage
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import EngineError
from parrot_compat.core.events import CallFailed, CallFinished, CallRetried, FirstToken, InputsEmbedded
from parrot_compat.core.prompt import Text

from .conftest import SPEED, World, make_call


async def test_the_first_token_tells_how_its_call_came_to_it(world: World) -> None:
    world.engine()
    result = await (await world.manager.open_session().submit(make_call("c", "hello"))).finished()
    (first,) = world.of(FirstToken)
    assert isinstance(first, FirstToken) and (first.model, first.engine) == ("m", "a")
    assert (first.submitted_s, first.started_s, first.at_s) == (
        result.submitted_s,
        result.started_s,
        result.first_token_s,
    )
    assert first.submitted_s <= first.ready_s <= first.started_s < first.at_s and first.waited_s == 0


async def test_a_call_that_is_run_anew_has_one_first_token_and_waited_for_it_all_the_time(world: World) -> None:
    lost = world.engine("a")
    world.engine("b")
    lost.stall()
    task = await world.manager.open_session().submit(make_call("c", "hello"))
    await world.clock.sleep(7.0)
    lost.die()
    await task.finished()
    (first,) = world.of(FirstToken)
    assert len(world.of(CallRetried)) == 1
    assert isinstance(first, FirstToken) and first.engine == "b"
    assert first.started_s - first.ready_s >= 7.0


async def test_the_first_token_of_a_text_engine_and_of_an_empty_answer_is_told_too(world: World) -> None:
    info = EngineInfo(name="text", model="m", context_tokens=4096, takes="text")
    world.fleet.add(ScriptedEngine({"hello": "there", "": ""}, info, speed=SPEED, clock=world.clock))
    session = world.manager.open_session()
    for id in ("hello", "nothing"):
        await (await session.submit(make_call(id))).finished()
    assert [event.call for event in world.of(FirstToken) if isinstance(event, FirstToken)] == ["hello", "nothing"]
    assert len(world.of(CallFinished)) == 2


async def test_a_call_that_is_left_tells_what_it_came_to(world: World) -> None:
    engine = world.engine(max_rows=1)
    session = world.manager.open_session()
    running, queued = await session.submit_all([make_call("r", "x" * 40), make_call("q")])
    await anext(running.chunks())
    queued.cancel()
    running.cancel()
    assert [event.usage for event in world.of(CallFailed) if isinstance(event, CallFailed)] == [
        Usage(),
        Usage(prompt_tokens=40, output_tokens=SPEED.chunk_tokens),
    ]
    await world.clock.sleep(1.0)
    engine.fail_next(EngineError("out of paper"))
    mute = await session.submit(make_call("m", "hello"))
    with pytest.raises(EngineError):
        await mute.finished()
    last = world.of(CallFailed)[-1]
    assert isinstance(last, CallFailed) and last.usage == Usage(prompt_tokens=5)
    assert len(world.of(FirstToken)) == 1


async def test_vectors_are_told_of_once_they_are_there(world: World) -> None:
    world.engine()
    await world.manager.embed([Text("ab"), Text("cde")], tenant="t")
    (told,) = world.of(InputsEmbedded)
    assert isinstance(told, InputsEmbedded)
    assert (told.model, told.tenant, told.inputs, told.prompt_tokens) == ("m", "t", 2, 5)
