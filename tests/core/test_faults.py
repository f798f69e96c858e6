"""What went wrong in the research code, and what else engines do to a manager: each must stay a small matter.

There an engine that died took the manager with it, an engine's error left readers waiting for ever, parallel maps all
went to one of two idle engines, and a busier engine overrode the home of a prefix.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from parrot_compat.core.engine import Chunk, EngineInfo, Generate
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import (
    ContextLost,
    EngineError,
    EngineLost,
    NoEngineForModel,
    ParrotError,
    PromptTooLong,
    UpstreamFailed,
)
from parrot_compat.core.events import CallFailed, CallFinished, CallPlaced, CallRetried, EngineGone, EngineJoined
from parrot_compat.core.prompt import Content, Text
from parrot_compat.core.task import TaskState

from .conftest import World, make_call


def places(world: World) -> list[str]:
    return [event.engine for event in world.of(CallPlaced) if isinstance(event, CallPlaced)]


async def test_an_engine_killed_before_the_first_token_is_replaced_by_another(world: World) -> None:
    first, second = world.engine("a"), world.engine("b")
    session = world.manager.open_session()
    first.stall()
    task = await session.submit(make_call("c", seed=11))
    await world.clock.sleep(0.001)
    first.die("kill -9")
    result = await task.finished()
    assert (result.text, result.engine) == ("<c>", "b")
    assert places(world) == ["a", "b"]
    assert second.generated == 1 and task.seed == 11
    assert len(world.of(CallRetried)) == 1 and len(world.of(EngineGone)) == 1
    world.manager.check()


async def test_an_engine_killed_amid_an_answer_fails_that_call_and_nothing_else(world: World) -> None:
    first = world.engine("a")
    world.engine("b")
    session = world.manager.open_session()
    task = await session.submit(make_call("c", "x" * 40))
    consumer = await session.submit(make_call("d", "d", "out-c"))
    await anext(task.chunks())
    first.die("kill -9")
    with pytest.raises(EngineLost, match="kill -9"):
        await task.finished()
    assert isinstance(consumer.failure, UpstreamFailed) and isinstance(consumer.failure.cause, EngineLost)
    assert (await (await session.submit(make_call("next"))).finished()).engine == "b"
    world.manager.check()


async def test_the_last_engine_gone_fails_what_runs_what_waits_and_what_comes(world: World) -> None:
    engine = world.engine("a", max_rows=1)
    session = world.manager.open_session()
    engine.stall()
    running, queued = await session.submit_all([make_call("a"), make_call("b")])
    await world.clock.sleep(0.001)
    assert (running.state, queued.state) == (TaskState.RUNNING, TaskState.READY)
    engine.die()
    with pytest.raises(EngineLost):
        await running.finished()
    with pytest.raises(NoEngineForModel):
        await queued.finished()
    with pytest.raises(NoEngineForModel):
        await session.submit(make_call("late"))
    world.manager.check()


async def test_a_lost_engine_comes_back_and_finishes_what_it_had_not_begun_to_say(world: World) -> None:
    engine = world.engine("a", max_rows=1, returns=True)
    session = world.manager.open_session()
    engine.stall()
    tasks = await session.submit_all([make_call("a"), make_call("b")])
    await world.clock.sleep(0.001)
    engine.die()
    assert [(await task.finished()).text for task in tasks] == ["<a>", "<b>"]
    assert len(world.of(EngineJoined)) == 2
    world.manager.check()


async def test_calls_of_a_lost_engine_keep_their_turn_among_those_that_wait(world: World) -> None:
    first = world.engine("a", max_rows=4)
    second = world.engine("b", max_rows=4)
    session = world.manager.open_session()
    first.stall()
    second.stall()
    tasks = await session.submit_all([make_call(f"c{n}") for n in range(40)])
    await world.clock.sleep(0.001)
    first.die()
    await world.clock.sleep(0.001)
    second.resume()
    assert [(await task.finished()).text for task in tasks] == [f"<c{n}>" for n in range(40)]
    assert len(world.of(CallRetried)) == 4
    placed = [event.call for event in world.of(CallPlaced) if isinstance(event, CallPlaced)]
    assert set(placed[8:12]) == {event.call for event in world.of(CallRetried) if isinstance(event, CallRetried)}
    world.manager.check()


async def test_a_prompt_that_kills_engines_is_tried_twice_and_no_more(world: World) -> None:
    def poison(prompt: str) -> str:
        if "poison" in prompt:
            raise EngineLost("segmentation fault")
        return "fine"

    for name in "abc":
        world.engine(name, poison)
    session = world.manager.open_session()
    task = await session.submit(make_call("poison"))
    with pytest.raises(EngineLost):
        await task.finished()
    assert len(places(world)) == 2
    assert [member.info.name for member in world.fleet] == ["c"]
    assert (await (await session.submit(make_call("other"))).finished()).text == "fine"


async def test_a_lost_context_is_tried_again_on_an_engine_that_stays(world: World) -> None:
    engine = world.engine()
    engine.fail_next(ContextLost("evicted"))
    task = await world.manager.open_session().submit(make_call("c"))
    assert (await task.finished()).text == "<c>"
    assert not world.of(EngineGone)


async def test_an_engine_that_does_not_start_again_is_tried_later_and_later(world: World) -> None:
    info = EngineInfo(name="a", model="m", context_tokens=512)
    tries: list[float] = []

    async def restart() -> ScriptedEngine:
        tries.append(world.clock.now())
        if len(tries) < 5:
            raise OSError("no such device")
        return ScriptedEngine({"": "back"}, info, clock=world.clock)

    engine = ScriptedEngine({"": "first"}, info, clock=world.clock)
    world.fleet.add(engine, engine.tokenizer, restart=restart)
    engine.die()
    task = await world.manager.open_session().submit(make_call("c"))
    assert (await task.finished()).text == "back"
    waits = [later - sooner for sooner, later in itertools.pairwise(tries)]
    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0])


async def test_an_error_of_the_engine_reaches_the_reader_and_the_engine_stays(world: World) -> None:
    engine = world.engine()
    engine.fail_next(EngineError("500"), after_tokens=2)
    session = world.manager.open_session()
    task = await session.submit(make_call("c"))
    said = ""
    with pytest.raises(EngineError, match="500"):
        async for chunk in task.chunks():
            said += chunk.text
    assert said == "<c"
    assert (await (await session.submit(make_call("d"))).finished()).text == "<d>"
    assert not world.of(EngineGone)


async def test_what_no_engine_should_raise_reaches_the_reader_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    engine = world.engine()
    engine.fail_next(ZeroDivisionError("oops"))
    task = await world.manager.open_session().submit(make_call("c"))
    with pytest.raises(EngineError, match="engine 'a' failed: ZeroDivisionError: oops"):
        await task.finished()
    assert "failed on call 'c'" in caplog.text


class Brittle(CharTokenizer):
    def encode(self, content: Content) -> tuple[int, ...]:
        if isinstance(content, Text) and "bad" in content.text:
            raise RecursionError("template")
        return super().encode(content)


@pytest.mark.parametrize("length", [0, 20_000])
async def test_a_tokenizer_that_raises_fails_the_calls_it_was_asked_for_only(world: World, length: int) -> None:
    info = EngineInfo(name="a", model="m", context_tokens=100_000)
    world.fleet.add(ScriptedEngine({"": "fine"}, info, clock=world.clock), Brittle())
    session = world.manager.open_session()
    session.declare("x")
    bad, good = await session.submit_all([make_call("b", "bad" + "." * length, "x"), make_call("g", "good", "x")])
    session.set("x", "!")
    with pytest.raises(ParrotError, match="the tokenizer failed on this prompt: RecursionError: template"):
        await bad.finished()
    assert (await good.finished()).text == "fine"
    with pytest.raises(ParrotError, match="the tokenizer failed"):
        await session.submit(make_call("c", "bad"))
    world.manager.check()


class Silent(ScriptedEngine):
    """Ends its answers without saying why, against the port."""

    async def generate(self, generate: Generate) -> AsyncGenerator[Chunk, None]:
        yield Chunk(text="so ")


async def test_an_answer_without_an_end_is_a_failure(world: World) -> None:
    engine = Silent({}, EngineInfo(name="a", model="m", context_tokens=512), clock=world.clock)
    world.fleet.add(engine, engine.tokenizer)
    task = await world.manager.open_session().submit(make_call("c"))
    with pytest.raises(EngineError, match="without saying how"):
        await task.finished()


async def test_twelve_parallel_maps_share_two_idle_engines(world: World) -> None:
    for name in "ab":
        world.engine(name)
    session = world.manager.open_session()
    maps = [make_call(f"map{n}", "Summarise: " + chr(97 + n) * 200) for n in range(12)]
    reduce = make_call("reduce", "Join:", *(call.output for call in maps))
    *tasks, last = await session.submit_all([*maps, reduce])
    await last.finished()
    assert Counter(places(world)[:12]) == {"a": 6, "b": 6}
    assert len({task.group for task in tasks}) == 1 and tasks[0].group is not None


async def test_twelve_maps_that_come_one_by_one_share_two_idle_engines_too(world: World) -> None:
    for name in "ab":
        world.engine(name)
    sessions = [world.manager.open_session() for _ in range(12)]
    tasks = [
        await session.submit(make_call("c", "Summarise: " + chr(97 + n) * 200)) for n, session in enumerate(sessions)
    ]
    await asyncio.gather(*(task.finished() for task in tasks))
    assert Counter(places(world)) == {"a": 6, "b": 6}


async def test_a_prefix_goes_home_past_an_engine_that_is_named_first(world: World) -> None:
    for name in "ab":
        world.engine(name)
    session = world.manager.open_session()
    blocker = await session.submit(make_call("blocker", "z" * 600))  # a is busy, so the prefix finds its home on b
    shared = "once upon a time " * 20
    for n in range(4):
        await (await session.submit(make_call(f"c{n}", f"{shared}{n}", max_tokens=1))).finished()
    assert places(world) == ["a", "b", "b", "b", "b"]
    await blocker.finished()
    late = await session.submit(make_call("late", f"{shared}late", max_tokens=1))
    result = await late.finished()
    assert result.engine == "b" and result.usage.cached_tokens >= 320


async def test_tenants_share_no_prefix(world: World) -> None:
    world.engine()
    cached = []
    for tenant in ("one", "one", "two"):
        task = await world.manager.open_session(tenant).submit(make_call("c", "x" * 400, max_tokens=1))
        cached.append((await task.finished()).usage.cached_tokens)
    assert cached[0] == 0 < cached[1] and cached[2] == 0


async def test_a_prompt_whose_only_large_engine_is_gone_fails_instead_of_waiting(world: World) -> None:
    large = world.engine("large", context_tokens=4096, max_rows=1)
    world.engine("small", context_tokens=128)
    session = world.manager.open_session()
    large.stall()
    running, queued = await session.submit_all([make_call("a", "x" * 200), make_call("b", "y" * 200)])
    await world.clock.sleep(0.001)
    large.die()
    for task in (running, queued):
        with pytest.raises(PromptTooLong, match="context of 128 tokens"):
            await task.finished()
    world.manager.check()


async def test_a_tenant_with_much_work_does_not_keep_another_waiting(world: World) -> None:
    world.engine(max_rows=1)
    flood = world.manager.open_session("flood")
    await flood.submit_all([make_call(f"c{n}", "x" * 50) for n in range(50)])
    await world.clock.sleep(0.2)
    task = await world.manager.open_session("other").submit(make_call("mine"))
    await task.finished()
    finished = [event.tenant for event in world.of(CallFinished) if isinstance(event, CallFinished)]
    assert finished.index("other") <= 3


async def test_an_app_that_began_first_is_not_overtaken_within_its_tenant(world: World) -> None:
    world.engine(max_rows=1)
    first, second = world.manager.open_session(), world.manager.open_session()
    await first.submit_all([make_call(f"c{n}") for n in range(3)])
    await second.submit_all([make_call(f"c{n}") for n in range(3)])
    last = await first.submit(make_call("last", "last", "out-c0", "out-c1", "out-c2"))
    await last.finished()
    finished = [event.session for event in world.of(CallFinished) if isinstance(event, CallFinished)]
    assert finished[:4] == [first.id] * 4  # its last call became ready when three of the other app's were waiting


async def test_two_models_do_not_wait_for_each_other(world: World) -> None:
    full = world.engine("a", model="m", max_rows=1)
    world.engine("b", model="n")
    session = world.manager.open_session()
    full.stall()
    await session.submit_all([make_call(f"c{n}") for n in range(100)])
    call = make_call("other")
    task = await session.submit(type(call)(id=call.id, prompt=call.prompt, output=call.output, model="n"))
    assert (await task.finished()).engine == "b"
    session.cancel()
    assert len(world.of(CallFailed)) == 100
