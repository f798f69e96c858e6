"""Sessions: calls and variables of one app, from submit to close."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref

import pytest

from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.engine import Generate
from parrot_compat.core.errors import (
    AlreadySettled,
    BadPrompt,
    CallerError,
    Cancelled,
    CycleInGraph,
    EngineError,
    NoEngineForModel,
    PromptTooLong,
    UnknownSession,
    UnknownVariable,
    UpstreamFailed,
)
from parrot_compat.core.events import CallFailed, CallFinished, CallPlaced, CallSubmitted, FirstToken
from parrot_compat.core.prompt import Text, TokensPrompt
from parrot_compat.core.rendering import Rendered
from parrot_compat.core.task import TaskState

from .conftest import World, make_call


async def test_a_call_is_answered_and_its_row_of_the_table_is_complete(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    task = await session.submit(make_call("c", "hello"))
    result = await task.finished()
    assert result.text == "<hello>" == "".join(map(chr, result.tokens))
    assert result.submitted_s <= result.started_s < result.first_token_s < result.finished_s
    assert [type(event) for event in world.events[2:]] == [CallSubmitted, CallPlaced, FirstToken, CallFinished]
    finished = world.events[-1]
    assert isinstance(finished, CallFinished)
    assert (finished.usage.prompt_tokens, finished.usage.output_tokens, finished.engine) == (5, 7, "a")
    world.manager.check()


async def test_chunks_reach_late_readers_from_the_first_on(world: World) -> None:
    world.engine()
    task = await world.manager.open_session().submit(make_call("c", "a longer prompt"))
    with task.followed():
        early = [chunk async for chunk in task.chunks()]
        late = [chunk async for chunk in task.chunks()]
        assert early == late and len(early) > 2
        assert "".join(chunk.text for chunk in late) == "<a longer prompt>" == await task.output.get()
    task.check()


async def test_what_is_over_and_not_followed_is_one_chunk_and_a_few_pieces_that_say_the_same(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    task = await session.submit(make_call("c", "a longer prompt " * 20, logprobs=1))
    variable = task.output.stream()
    early, read = [await anext(chunks := task.chunks())], [await anext(variable)]
    await task.finished()
    early += [chunk async for chunk in chunks]  # who has begun goes on as the chunks came
    read += [text async for text in variable]
    (late,) = [chunk async for chunk in task.chunks()]
    pieces = [text async for text in task.output.stream()]
    assert len(early) == len(read) > 32 and 8 < len(pieces) <= 16
    assert late.text == "".join(pieces) == "".join(read) == await task.output.get()
    assert late.tokens == tuple(token for chunk in early for token in chunk.tokens)
    assert late.logprobs == tuple(one for chunk in early for one in chunk.logprobs)
    assert (late.prompt, late.finish, late.usage) == (early[0].prompt, early[-1].finish, early[-1].usage)
    task.check()


async def test_an_open_session_keeps_no_prompt_of_a_call_that_is_over_unless_somebody_follows_it(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    tasks = await session.submit_all([make_call("a", "x" * 1001), make_call("b", "x" * 1001, "out-a")])

    def rendered() -> int:
        gc.collect()
        return sum(type(one) is Rendered and one.prompt_tokens > 1000 for one in gc.get_objects())

    with tasks[1].followed():
        await tasks[1].finished()
        await world.clock.sleep(1)  # it has left the engine
        assert rendered() == 1
    assert rendered() == 0
    assert [call["prompt_tokens"] for call in session.describe()["calls"]] == [1001, 1001 + 1 + 1003]
    assert session.content(tasks[1].call) == Text(f"{'x' * 1001} <{'x' * 1001}>")
    session.check()


async def test_nor_of_one_that_has_failed_nor_its_readers(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    engine.fail_next(EngineError("out of paper"))
    task = await session.submit(make_call("a", "x" * 1001))

    async def read(asked: bytearray) -> bool:
        with pytest.raises(EngineError, match="out of paper"):
            await task.finished()
        with pytest.raises(EngineError, match="out of paper"):
            async for _ in task.chunks():
                pass
        return len(asked) > 0

    asked = bytearray(b"a request")
    assert await read(asked)
    await world.clock.sleep(1)  # it has left the engine
    gc.collect()
    assert task.rendered is None
    asked_for = [
        one for one in gc.get_objects() if type(one) is Generate and len(getattr(one.content, "ids", ())) == 1001
    ]
    assert not asked_for
    assert sys.getrefcount(asked) == 2, "this name, and the argument of getrefcount"
    assert task.failure is not None and task.failure.__traceback__ is None


async def test_a_call_runs_when_its_inputs_are_there(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    last = await session.submit(make_call("first"))
    for step in ("second", "third"):
        last = await session.submit(make_call(step, step, last.output.name))
    assert (await last.finished()).text == "<third <second <first>>>"
    session.check()


async def test_one_output_read_by_two_consumers_reaches_both(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    calls = [
        make_call("a"),
        make_call("b", "b", "out-a"),
        make_call("c", "c", "out-a"),
        make_call("d", "d", "out-b", "out-c"),
    ]
    *_, last = await session.submit_all(calls)
    assert (await last.finished()).text == "<d <b <a>> <c <a>>>"


async def test_a_submit_takes_calls_in_any_order(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    last, *_ = await session.submit_all([make_call("b", "b", "out-a"), make_call("a")])
    assert (await last.finished()).text == "<b <a>>"


async def test_a_variable_set_from_outside_starts_what_waits_for_it(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.declare("question")
    task = await session.submit(make_call("c", "Q:", "question"))
    assert task.state is TaskState.WAITING
    session.set("question", "why?")
    assert (await task.finished()).text == "<Q: why?>"
    with pytest.raises(AlreadySettled):
        session.set("question", "again")
    with pytest.raises(AlreadySettled, match="the output of call 'c'"):
        session.set("out-c", "mine")


async def test_an_output_may_be_bound_to_a_declared_variable(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    reader = await session.submit(make_call("r", "r", session.declare("essay").name))
    await session.submit(make_call("w", output="essay"))
    assert (await reader.finished()).text == "<r <w>>"


async def test_a_prompt_over_known_variables_is_rendered_at_once(world: World) -> None:
    world.engine(context_tokens=64)
    session = world.manager.open_session()
    session.set("book", "x" * 100)
    with pytest.raises(PromptTooLong, match=r"prompt is too long: 102 tokens .* context of 64"):
        await session.submit(make_call("c", "c", "book"))
    assert session.tasks() == () and world.manager.open_calls == 0


async def test_what_is_wrong_with_a_call_is_said_at_submit_and_nothing_of_it_stays(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    with pytest.raises(BadPrompt):
        bad = Call(id=CallId("t"), prompt=TokensPrompt((-1,)), output=VariableName("t"))
        await session.submit_all([make_call("good"), bad])
    with pytest.raises(UnknownVariable):
        await session.submit(make_call("c", "c", "nobody"))
    with pytest.raises(CycleInGraph):
        await session.submit_all([make_call("a", "a", "out-b"), make_call("b", "b", "out-a")])
    with pytest.raises(NoEngineForModel, match="'huge'; served: 'm'"):
        call = make_call("c")
        await session.submit(Call(id=call.id, prompt=call.prompt, output=call.output, model="huge"))
    assert session.tasks() == () and world.manager.open_calls == 0
    assert not world.of(CallSubmitted)
    session.check()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\nb", "\x00", "🦜" * 100, "'; DROP TABLE calls; --", "{{input:x}}"]
)
async def test_hostile_names_are_names(world: World, name: str) -> None:
    world.engine()
    session = world.manager.open_session(tenant=name, name=name)
    session.set(name, "value")
    task = await session.submit(make_call(name, "c", name, output=f"{name}!"))
    assert (await task.finished()).text == "<c value>"
    assert session.task(CallId(name)) is task


@pytest.mark.parametrize("name", ["", "x" * 513])
async def test_names_that_are_empty_or_endless_are_refused(world: World, name: str) -> None:
    world.engine()
    session = world.manager.open_session()
    with pytest.raises(CallerError, match="1 to 512 characters"):
        await session.submit(
            make_call("c", output=name)
            if name
            else Call(id=CallId(""), prompt=TokensPrompt(()), output=VariableName("o"))
        )
    with pytest.raises(CallerError, match="1 to 512 characters"):
        session.declare(name)


# ---- failure and cancel --------------------------------------------------------------------------------------------


async def test_consumers_of_a_failed_variable_fail_with_its_cause(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    engine.fail_next(EngineError("out of paper"))
    calls = [make_call("a"), make_call("b", "b", "out-a"), make_call("c", "c", "out-b"), make_call("free")]
    a, b, c, free = await session.submit_all(calls)
    with pytest.raises(UpstreamFailed) as failed:
        await c.finished()
    assert failed.value.variable == "out-b" and failed.value.cause is a.failure
    assert isinstance(b.failure, UpstreamFailed) and b.failure.variable == "out-a"
    assert (await free.finished()).text == "<free>"
    session.check()


async def test_a_call_on_a_variable_that_has_failed_fails_at_once(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.fail("page", EngineError("404"))
    task = await session.submit(make_call("c", "c", "page"))
    assert isinstance(task.failure, UpstreamFailed)


async def test_what_has_failed_from_outside_takes_no_call_that_would_write_it(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    session.fail("x", EngineError("no x"))
    with pytest.raises(AlreadySettled):
        await session.submit(make_call("c", output="x"))
    assert engine.generated == 0 and world.manager.open_calls == 0
    world.manager.check()


async def test_an_answer_that_its_client_has_left_is_background_work_for_what_still_reads_it(world: World) -> None:
    engine = world.engine(max_rows=1)
    engine.stall()
    await world.manager.open_session().submit(make_call("blocker"))
    session = world.manager.open_session()
    session.declare("other")
    with session.awaiting("other"):
        first, reader = await session.submit_all([make_call("a"), make_call("b", "b", "out-a")], is_delivered=True)
        session.leave(first.call.id)
        assert not first.is_over, "b reads it"
        reader.cancel()
        assert first.objective.kind == "background"
    engine.resume()
    await first.finished()


async def test_failure_travels_a_graph_of_any_depth(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    depth = 3000
    session.declare("v0")
    calls = [make_call(str(n), "x", f"v{n}", output=f"v{n + 1}") for n in range(depth)]
    *_, last = await session.submit_all(calls)
    session.fail("v0", EngineError("root"))
    assert isinstance(last.failure, UpstreamFailed) and str(last.failure.cause) == "root"
    assert len(str(last.failure)) < 100
    session.check()


async def test_a_running_call_is_cancelled_down_to_the_engine(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    task = await session.submit(make_call("c", "x" * 50))
    waiting = await session.submit(make_call("d", "d", "out-c"))
    chunks = task.chunks()
    await anext(chunks)
    task.cancel()
    assert task.state is TaskState.CANCELLED
    with pytest.raises(Cancelled):
        await task.finished()
    with pytest.raises(Cancelled):
        _ = [chunk async for chunk in chunks]
    assert isinstance(waiting.failure, UpstreamFailed) and isinstance(waiting.failure.cause, Cancelled)
    await world.clock.sleep(1)
    assert engine.load().running == 0
    engine.check()
    world.manager.check()


async def test_a_call_is_cancelled_before_its_work_has_begun(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    queued = await session.submit(make_call("c"))
    queued.cancel()
    placed = await session.submit(make_call("d"))
    await asyncio.sleep(0)  # placement has run, the work has not had its first step
    placed.cancel(Cancelled("the client left"))
    with pytest.raises(Cancelled, match="the client left"):
        await placed.finished()
    await world.clock.sleep(1)
    assert engine.generated == 0
    world.manager.check()


async def test_a_reader_that_leaves_does_not_stop_the_call(world: World) -> None:
    world.engine()
    task = await world.manager.open_session().submit(make_call("c"))
    reader = asyncio.create_task(task.finished())
    await asyncio.sleep(0)
    reader.cancel()
    assert (await task.finished()).text == "<c>"


async def test_cancelling_a_session_ends_all_its_calls_for_that_reason_and_keeps_it_open(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    engine.stall()
    tasks = await session.submit_all([make_call("a"), make_call("b", "b", "out-a"), make_call("c", "c", "out-b")])
    await world.clock.sleep(1)
    session.cancel()
    assert all(isinstance(task.failure, Cancelled) for task in tasks)
    engine.resume()
    assert (await (await session.submit(make_call("again"))).finished()).text == "<again>"
    session.check()


async def test_closing_a_session_ends_what_is_under_it(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session(tenant="t")
    engine.stall()
    running = await session.submit(make_call("a"))
    waiting = await session.submit(make_call("b", "b", "out-a"))
    declared = session.declare("never")
    await world.clock.sleep(1)
    await session.close()
    assert isinstance(running.failure, Cancelled) and isinstance(waiting.failure, Cancelled)
    with pytest.raises(Cancelled):
        await declared.get()
    assert engine.load().running == 0
    with pytest.raises(UnknownSession):
        await session.submit(make_call("late"))
    with pytest.raises(UnknownSession):
        world.manager.session(session.id, "t")
    await session.close()


async def test_nothing_is_kept_of_sessions_that_are_closed(world: World) -> None:
    world.engine()
    kept: list[weakref.ref[object]] = []
    for _ in range(20):
        session = world.manager.open_session()
        tasks = await session.submit_all([make_call("a"), make_call("b", "b", "out-a")])
        await tasks[-1].finished()
        kept += [weakref.ref(session), *map(weakref.ref, tasks), *(weakref.ref(task.output) for task in tasks)]
        await session.close()
    del session, tasks
    world.events.clear()
    await world.clock.sleep(1)
    gc.collect()
    assert [ref() for ref in kept if ref() is not None] == []
    assert world.manager.sessions() == ()


async def test_a_call_that_nobody_reads_runs_and_harms_nobody(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    await session.submit(make_call("unread"))
    engine.fail_next(EngineError("x"))
    await session.submit(make_call("unread too"))
    await world.clock.sleep(3600)
    assert len(world.of(CallFinished, CallFailed)) == 2
    assert (await (await session.submit(make_call("read"))).finished()).text == "<read>"


async def test_every_call_has_a_seed_from_its_acceptance(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    drawn = [await session.submit(make_call(f"c{n}")) for n in range(5)]
    assert len({task.seed for task in drawn}) == 5
    assert (await session.submit(make_call("given", seed=7))).seed == 7


async def test_a_large_prompt_is_encoded_beside_the_event_loop(world: World) -> None:
    world.engine(context_tokens=100_000)
    session = world.manager.open_session()
    session.declare("book")
    dependent = await session.submit(make_call("d", "d", "book", max_tokens=5))
    session.set("book", "x" * 20_000)
    direct = await session.submit(make_call("c", "y" * 20_000, max_tokens=5))
    assert (await dependent.finished()).text == "<d xx"
    assert (await direct.finished()).text == "<yyyy"


async def test_a_dependent_prompt_that_grows_too_long_fails_its_call_alone(world: World) -> None:
    world.engine(context_tokens=64)
    session = world.manager.open_session()
    session.declare("book")
    long, short = await session.submit_all([make_call("l", "l", "book"), make_call("s")])
    session.set("book", "x" * 100)
    assert isinstance(long.failure, PromptTooLong)
    assert (await short.finished()).text == "<s>"
