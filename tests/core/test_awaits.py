"""Awaits, objectives on their way to engines, lifetimes of sessions, and what is told of them."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncGenerator

import pytest

from parrot_compat.core.call import Call
from parrot_compat.core.engine import Chunk, ContextId, EngineInfo, Generate
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import EngineError, UnknownVariable, UpstreamFailed
from parrot_compat.core.events import CallPlaced
from parrot_compat.core.lengths import KEPT, NAMES, Lengths
from parrot_compat.core.objective import BASE_SLACK_S
from parrot_compat.core.prompt import Tokens
from parrot_compat.core.session import Session
from parrot_compat.core.task import Task, TaskState

from .conftest import World, make_call


def maps_and_reduce(maps: int = 3) -> list[Call]:
    calls = [make_call(f"m{n}", "x" * (n + 1)) for n in range(maps)]
    return [*calls, make_call("r", "r", *(call.output for call in calls))]


async def test_reading_a_variable_waits_and_says_what_is_quick(world: World) -> None:
    world.engine(max_rows=1).stall()
    session = world.manager.open_session()
    calls = [make_call("a"), make_call("b", "b", "out-a"), make_call("other")]
    tasks = await session.submit_all(calls, is_delivered=False)
    assert [task.objective.kind for task in tasks] == ["latency"] * 3  # nothing was said yet
    reader = asyncio.create_task(session.read("out-b"))
    await asyncio.sleep(0)
    assert [task.objective.kind for task in tasks] == ["latency", "latency", "background"]
    session.check()
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert tasks[1].objective.kind == "background"  # and the app has shown that it awaits what it wants
    session.check()


async def test_reading_gives_the_text_or_nothing_in_time_or_the_failure(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    session.declare("late")
    assert await session.read("late", timeout_s=5) is None and world.clock.now() == 5
    session.set("late", "now")
    assert await session.read("late", timeout_s=0) == await session.read("late") == "now"
    engine.fail_next(EngineError("out of paper"))
    await session.submit(make_call("c"))
    with pytest.raises(EngineError):
        await session.read("out-c", timeout_s=60)
    with pytest.raises(UnknownVariable):
        await session.read("nobody")
    session.check()


async def test_streaming_a_variable_gives_every_piece_and_counts_as_an_await(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    chat, idle = await session.submit_all([make_call("chat", "a long question"), make_call("idle")], is_delivered=False)
    stream = session.stream("out-chat")
    first = await anext(stream)
    assert session.is_needed(chat.call.id) and not session.is_needed(idle.call.id)
    assert first + "".join([piece async for piece in stream]) == "<a long question>"
    assert not session.is_needed(chat.call.id)
    session.check()


async def test_reading_a_task_is_no_await(world: World) -> None:
    world.engine().stall()
    session = world.manager.open_session()
    with session.awaiting(session.declare("other").name):
        (task,) = await session.submit_all([make_call("a")], is_delivered=False)
        reader = asyncio.create_task(task.finished())
        await asyncio.sleep(0)
        assert task.objective.kind == "background"
        reader.cancel()


class Noting(ScriptedEngine):
    """Keeps what it is asked to generate, by the first letter of the prompt, and what it is told to hurry."""

    def __init__(self, world: World) -> None:
        info = EngineInfo(name="a", model="m", context_tokens=4096)
        super().__init__({"": "."}, info, clock=world.clock)
        world.fleet.add(self, self.tokenizer)
        self.seen: dict[str, Generate] = {}
        self.hurried: list[tuple[ContextId, float]] = []

    def generate(self, generate: Generate) -> AsyncGenerator[Chunk, None]:
        assert isinstance(generate.content, Tokens)
        self.seen[self.tokenizer.decode(generate.content.ids)[0]] = generate
        return super().generate(generate)

    def hurry(self, context: ContextId, slack_s: float) -> None:
        self.hurried.append((context, slack_s))


async def test_what_was_deduced_reaches_the_engine(world: World) -> None:
    engine = Noting(world)
    session = world.manager.open_session()
    calls = [make_call("a", "a", max_tokens=10), make_call("b", "b", max_tokens=110), make_call("x", "x")]
    await session.submit_all([*calls, make_call("r", "r", "out-a", "out-b")], is_delivered=False)
    await session.read("out-r")
    scopes = {name: generate.scope for name, generate in engine.seen.items()}
    assert scopes["a"].slack_s == pytest.approx(100 * world.fleet.step_s("m"), rel=0.5) and scopes["b"].slack_s == 0
    assert scopes["r"].slack_s == 0 and scopes["x"].slack_s == BASE_SLACK_S["background"]


async def test_an_app_that_reads_each_answer_before_it_calls_again_never_calls_in_the_background(world: World) -> None:
    engine = Noting(world)
    session = world.manager.open_session()
    await session.submit_all([make_call("a")], is_delivered=False)
    await session.read("out-a")
    await session.submit_all([make_call("b", "b", "out-a")], is_delivered=False)
    for _ in range(3):  # the way to the app and back
        await asyncio.sleep(0)
    assert "b" in engine.seen
    await session.read("out-b")
    assert engine.seen["b"].scope.slack_s == 0
    session.check()


async def test_an_await_hurries_what_an_engine_has_begun(world: World) -> None:
    engine = Noting(world)
    engine.stall()
    session = world.manager.open_session()
    with session.awaiting(session.declare("other").name):
        task, _ = await session.submit_all([make_call("a"), make_call("b")], is_delivered=False)
        for _ in range(3):
            await asyncio.sleep(0)
        assert engine.seen["a"].scope.slack_s == BASE_SLACK_S["background"] and not engine.hurried
        for _ in range(2):  # whoever asks again and again is heard once
            with session.awaiting("out-a"):
                assert engine.hurried == [(engine.seen["a"].context, 0.0)]
        assert task.objective.slack_s == 0
        session.check()


async def test_an_await_is_in_time_until_the_engine_has_been_asked(world: World) -> None:
    engine = Noting(world)
    engine.stall()
    session = world.manager.open_session()
    with session.awaiting(session.declare("other").name):
        (task,) = await session.submit_all([make_call("a")], is_delivered=False)
        await asyncio.sleep(0)
        assert task.state is TaskState.RUNNING and not engine.seen
        with session.awaiting("out-a"):
            await asyncio.sleep(0)
    assert engine.seen["a"].scope.slack_s == 0 and not engine.hurried


async def test_what_nobody_awaits_goes_behind_what_is_awaited(world: World) -> None:
    engine = world.engine(max_rows=1)
    engine.stall()
    first, second = world.manager.open_session(), world.manager.open_session()
    blocker = await first.submit(make_call("blocker"))
    with first.awaiting(first.declare("something").name):
        await first.submit_all([make_call(f"idle{n}") for n in range(3)], is_delivered=False)
        await second.submit(make_call("chat"))
        engine.resume()
        await blocker.finished()
        await world.clock.sleep(10)
    placed = [event.call for event in world.of(CallPlaced) if isinstance(event, CallPlaced)]
    assert placed == ["blocker", "chat", "idle0", "idle1", "idle2"]


async def test_an_await_moves_what_waits_in_the_queue(world: World) -> None:
    engine = world.engine(max_rows=1)
    engine.stall()
    session = world.manager.open_session()
    await session.submit(make_call("blocker"))
    with session.awaiting(session.declare("something").name):
        await session.submit_all([make_call(f"c{n}") for n in range(4)], is_delivered=False)
        await asyncio.sleep(0)
        reader = asyncio.create_task(session.read("out-c3"))
        await asyncio.sleep(0)
        engine.resume()
        await reader
    placed = [event.call for event in world.of(CallPlaced) if isinstance(event, CallPlaced)]
    assert placed[:2] == ["blocker", "c3"]


async def test_slack_is_of_the_moment_in_which_a_call_becomes_ready(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.declare("go")
    short = await session.submit(make_call("short", "s", "go", max_tokens=10))
    long = await session.submit(make_call("long", max_tokens=100))
    await session.submit(make_call("join", "j", "out-short", "out-long"))
    await long.finished()
    session.set("go", "!")
    assert short.objective.slack_s == 0  # by itself it would wait for the long one, but that is over
    session.check()


async def test_the_slack_of_a_call_is_what_is_left_of_those_that_run_beside_it(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.declare("go")
    short = await session.submit(make_call("short", "s", "go", max_tokens=10))
    long = await session.submit(make_call("long", "x" * 100, max_tokens=100))
    await session.submit(make_call("join", "j", "out-short", "out-long"))
    step_s = world.fleet.step_s("m")
    await world.clock.sleep(0.4)
    assert long.state is TaskState.RUNNING
    session.set("go", "!")
    await asyncio.sleep(0)
    assert short.objective.slack_s == pytest.approx((100 - 10) * step_s - 0.4, abs=0.01)
    await long.finished()
    session.check()


async def test_what_a_lost_engine_had_done_counts_for_nothing_in_the_slack_of_its_calls(world: World) -> None:
    engine = world.engine(max_rows=1, returns=True)
    engine.stall()
    session = world.manager.open_session()
    calls = [make_call(name, name, max_tokens=30) for name in ("a", "b")]
    tasks = await session.submit_all([*calls, make_call("r", "r", *(call.output for call in calls))])
    await world.clock.sleep(25)
    assert tasks[0].state is TaskState.RUNNING
    engine.die()
    await tasks[0].finished()
    assert tasks[0].attempts == 2 and tasks[0].objective.slack_s == 0
    await tasks[2].finished()
    session.check()


async def test_a_call_that_is_left_goes_on_if_it_is_read_or_awaited(world: World) -> None:
    world.engine().stall()
    session = world.manager.open_session()
    calls = [make_call("read"), make_call("reader", "r", "out-read"), make_call("awaited"), make_call("alone")]
    read, _, awaited, alone = await session.submit_all(calls)
    with session.awaiting("out-awaited"):
        for task in (read, awaited, alone):
            session.leave(task.call.id)
        assert [task.is_over for task in (read, awaited, alone)] == [False, False, True]
    session.leave(awaited.call.id)
    assert awaited.is_over


async def test_receipts_know_where_a_call_ran_and_how_long_it_waited(world: World) -> None:
    engine = world.engine(max_rows=1)
    session = world.manager.open_session()
    first, second = await session.submit_all([make_call("a", "x" * 400), make_call("b", "x" * 400)])
    assert first.queue_s is None and first.cached_tokens is None
    await second.finished()
    assert first.queue_s == 0 and second.queue_s is not None and second.queue_s > 0
    assert first.cached_tokens == 0 and second.cached_tokens == 384 and second.engine == engine.info.name
    assert second.objective.kind == "latency"


# ---- life ----------------------------------------------------------------------------------------------------------


async def test_a_session_ends_by_itself_when_nothing_of_it_lives(world: World) -> None:
    world.engine()
    session = world.manager.open_session(ttl_s=60)
    await (await session.submit(make_call("c"))).finished()
    session.declare("never")
    await session.submit(make_call("stuck", "s", "never"))  # what waits for something from outside is no life
    await world.clock.sleep(59)
    assert not session.is_closed
    await world.clock.sleep(2)
    assert session.is_closed and world.manager.open_calls == 0


async def test_a_reader_keeps_its_session_alive(world: World) -> None:
    world.engine()
    session = world.manager.open_session(ttl_s=10)
    session.declare("late")
    assert await session.read("late", timeout_s=100) is None
    assert not session.is_closed
    session.set("late", "x")
    await world.clock.sleep(11)
    assert session.is_closed


async def test_many_sessions_leave_nothing_behind(world: World) -> None:
    world.engine()
    kept: list[weakref.ref[Session | Task]] = []
    for n in range(200):
        session = world.manager.open_session(f"tenant-{n}", ttl_s=1000 if n % 2 else None)
        tasks = await session.submit_all(maps_and_reduce(), is_delivered=False)
        await session.read("out-r")
        kept += [weakref.ref(session), *map(weakref.ref, tasks)]
        await session.close()
    del session, tasks
    world.events.clear()
    await world.clock.sleep(2000)
    gc.collect()
    assert not [ref for ref in kept if ref() is not None]


# ---- descriptions --------------------------------------------------------------------------------------------------


async def test_a_session_is_described_in_plain_values(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session(name="notebook")
    session.set("page", "text")
    await session.submit_all([make_call("a", "a", "page"), make_call("b", "b", "out-a")])
    await session.read("out-b")
    engine.fail_next(EngineError("out of paper"))
    failing, _ = await session.submit_all([make_call("c"), make_call("d", "d", "out-c")])
    await asyncio.gather(failing.finished(), return_exceptions=True)
    described = json.loads(json.dumps(session.describe()))
    assert described["name"] == "notebook" and [call["id"] for call in described["calls"]] == ["a", "b", "c", "d"]
    a, b, c, d = described["calls"]
    assert (a["state"], a["objective"], a["inputs"], a["output"], a["engine"]) == (
        "finished",
        "latency",
        ["page"],
        "out-a",
        "a",
    )
    assert a["prompt_tokens"] == 6 and a["output_tokens"] == 8 and a["cached_tokens"] == 0
    assert a["submitted_s"] <= a["ready_s"] <= a["started_s"] < a["first_token_s"] < a["finished_s"] <= b["ready_s"]
    assert c["error"] == {"type": "EngineError", "message": "out of paper"}
    assert d["error"]["variable"] == "out-c" and d["error"]["cause"] == c["error"]
    variables = {variable["id"]: variable for variable in described["variables"]}
    assert variables["page"] == {
        "id": "page",
        "state": "ready",
        "producer": None,
        "consumers": ["a"],
        "characters": 4,
        "error": None,
    }
    assert variables["out-a"]["producer"] == "a" and variables["out-a"]["consumers"] == ["b"]
    assert variables["out-c"]["state"] == variables["out-d"]["state"] == "failed"


async def test_failures_are_described_down_to_their_root(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.fail("page", EngineError("404"))
    task = await session.submit(make_call("c", "c", "page"))
    assert isinstance(task.failure, UpstreamFailed)
    (call,) = session.describe()["calls"]
    assert call["error"]["cause"] == {"type": "EngineError", "message": "404"} and call["state"] == "failed"


async def test_a_description_names_no_calls_that_came_after_it_was_made(world: World) -> None:
    world.engine().stall()
    session = world.manager.open_session()
    for name in ("page", "late"):
        session.declare(name)
    await session.submit(make_call("a", "a", "page"))
    description = session.description()
    await session.submit_all([make_call("b", "b", "page"), make_call("c", output="late")])
    assert [call["id"] for call in description.calls()] == ["a"]
    page, late, output = description.variables()
    assert page["consumers"] == ["a"] and late["producer"] is None and output["producer"] == "a"
    assert [call["id"] for call in session.description().whole()["calls"]] == ["a", "b", "c"]


# ---- lengths -------------------------------------------------------------------------------------------------------


def test_quantiles_are_those_of_the_last_answers() -> None:
    lengths = Lengths()
    assert lengths.quantile(("f",)) is None and lengths.expected(("f",), None) == 128
    for tokens in range(1000):
        lengths.learn(("f",), tokens)
        lengths.check()
    last = sorted(range(1000 - KEPT, 1000))
    assert lengths.quantile(("f",)) == last[KEPT // 2]
    assert lengths.quantile(("f",), 0.9) == last[int(0.9 * KEPT)] and lengths.quantile(("f",), 1.0) == 999
    assert lengths.expected(("f",), 10) == 10


def test_only_so_many_functions_are_remembered() -> None:
    lengths = Lengths()
    for number in range(NAMES + 10):
        lengths.learn((str(number),), 1)
        lengths.quantile(("0",))
    lengths.check()
    assert lengths.quantile(("9",)) is None and lengths.quantile((str(NAMES),)) == 1
