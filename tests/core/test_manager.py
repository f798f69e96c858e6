"""The manager: models, sessions, limits, and the end."""

from __future__ import annotations

import asyncio

import pytest

from parrot_compat.core import manager
from parrot_compat.core.admission import Admission
from parrot_compat.core.engine import ContextId, EngineInfo, Fill
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import (
    Cancelled,
    EngineLost,
    NoEngineForModel,
    PromptTooLong,
    QueueFull,
    SessionFull,
    TooManyCalls,
    UnknownSession,
    UnknownVariable,
)
from parrot_compat.core.events import Event, EventStream, SessionClosed, SessionOpened
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Limits, Manager
from parrot_compat.core.prompt import ChatPrompt, Constant, Message, Text
from parrot_compat.core.rendering import about_tokens
from parrot_compat.core.task import TaskState
from parrot_compat.core.template import Template

from .conftest import World, make_call


async def test_models_are_listed_in_order_with_their_engines_and_the_largest_context(world: World) -> None:
    world.engine("a", model="m", context_tokens=100)
    world.engine("b", model="n")
    world.engine("c", model="m", context_tokens=200)
    cards = world.manager.models()
    assert [(card.name, card.context_tokens, card.engines) for card in cards] == [
        ("m", 200, ("a", "c")),
        ("n", 4096, ("b",)),
    ]


async def test_a_call_that_names_no_model_takes_the_first(world: World) -> None:
    world.engine("a", model="m")
    world.engine("b", model="n")
    task = await world.manager.open_session().submit(make_call("c"))
    assert task.model == "m"
    assert world.manager.tokenizer() is world.fleet.tokenizer("m")


async def test_without_engines_there_is_no_model(world: World) -> None:
    assert world.manager.models() == ()
    with pytest.raises(NoEngineForModel, match="served: nothing"):
        world.manager.tokenizer()


async def test_a_model_whose_engine_restarts_stays_listed(world: World) -> None:
    engine = world.engine(returns=True)
    engine.die()
    world.fleet.lost(world.fleet.member("a"), EngineLost("gone"))
    (card,) = world.manager.models()
    assert card.name == "m" and card.engines == ()
    await world.clock.sleep(1)
    assert world.manager.models()[0].engines == ("a",)


async def test_a_session_is_found_by_its_id_and_its_tenant_only(world: World) -> None:
    session = world.manager.open_session("one", name="notebook")
    assert world.manager.session(session.id, "one") is session
    refusals = []
    for session_id, tenant in (
        (session.id, "two"),
        (session.id, ""),
        ("0", "one"),
        ("../1", "one"),
        ("x" * 10**6, "one"),
    ):
        with pytest.raises(UnknownSession) as refusal:
            world.manager.session(session_id, tenant)
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1] and max(map(len, refusals)) < 200


async def test_session_ids_cannot_be_guessed_from_each_other(world: World) -> None:
    ids = {world.manager.open_session().id for _ in range(100)}
    assert len(ids) == 100 and {len(id) for id in ids} == {32}


async def test_the_server_holds_only_so_many_calls(world: World) -> None:
    world.limit(Limits(open_calls=3))
    world.engine().stall()
    session = world.manager.open_session()
    tasks = await session.submit_all([make_call("a"), make_call("b")])
    with pytest.raises(QueueFull, match="4 open here; the limit is 3"):
        await session.submit_all([make_call("c"), make_call("d")])
    await session.submit(make_call("c"))
    tasks[0].cancel()
    await session.submit(make_call("d"))
    world.manager.check()


async def test_a_tenant_holds_only_so_many_calls(world: World) -> None:
    world.limit(Limits(open_calls_per_tenant=1))
    world.engine()
    first = await world.manager.open_session("one").submit(make_call("a"))
    with pytest.raises(TooManyCalls):
        await world.manager.open_session("one").submit(make_call("b"))
    await world.manager.open_session("two").submit(make_call("c"))
    await first.finished()
    await world.manager.open_session("one").submit(make_call("d"))


async def test_the_server_holds_only_so_many_tokens_of_prompts(world: World) -> None:
    world.limit(Limits(open_prompt_tokens=1000))
    world.engine().stall()
    session = world.manager.open_session()
    large = await session.submit(make_call("large", "x" * 900))
    other = make_call("other", "y" * 800)
    with pytest.raises(QueueFull, match="the prompts of 1 more calls would make 1100 tokens here; the limit is 1000"):
        await session.submit(other)
    with pytest.raises(QueueFull):
        await world.manager.embed([Text("y" * 800)])
    await session.submit(make_call("small"))
    large.cancel()
    await session.submit(other)
    world.manager.check()


async def test_prompts_that_no_server_would_take_at_once_are_too_long_and_not_to_be_tried_again(world: World) -> None:
    world.limit(Limits(open_prompt_tokens=1000))
    world.engine()
    with pytest.raises(PromptTooLong, match="at once 1000 are taken"):
        await world.manager.open_session().submit_all([make_call(f"c{n}", "x" * 4000) for n in range(2)])
    world.manager.check()


def test_calls_of_tools_and_schemas_count_as_a_prompts_text() -> None:
    called = {"tool_calls": [{"function": {"name": "f", "arguments": "x" * 4000}}]}
    said = ChatPrompt((Message(role="assistant", content=(), fields=called),), ())
    offered = ChatPrompt((), ({"function": {"parameters": {"description": "y" * 4000}}},))
    assert about_tokens(said) >= 1000 and about_tokens(offered) >= 1000


async def test_a_prompt_counts_with_what_its_inputs_have_brought_and_stays(world: World) -> None:
    world.limit(Limits(open_prompt_tokens=1000))
    world.engine().stall()
    session = world.manager.open_session()
    session.declare("page")
    readers = await session.submit_all([make_call(f"r{n}", "r", "page") for n in range(2)])
    session.set("page", "x" * 600)
    await world.clock.sleep(0.001)
    assert not any(task.is_over for task in readers)
    with pytest.raises(QueueFull):
        await session.submit(make_call("late"))
    session.cancel()
    await session.submit(make_call("late"))
    world.manager.check()


async def test_what_inputs_bring_beyond_twice_the_limit_fails_the_calls_that_read_it(world: World) -> None:
    world.limit(Limits(open_prompt_tokens=1000))
    world.engine().stall()
    session = world.manager.open_session()
    session.declare("page")
    readers = await session.submit_all([make_call(f"r{n}", "r", "page") for n in range(4)])
    session.set("page", "x" * 600)
    await world.clock.sleep(0.001)
    assert [task.is_over for task in readers] == [False, False, False, True]
    assert isinstance(readers[3].failure, QueueFull) and "the most is 2000" in str(readers[3].failure)
    assert world.manager.open_calls == 3
    world.manager.check()
    session.cancel()
    with pytest.raises(QueueFull):
        await session.submit_all([make_call(f"s{n}", "s", "page") for n in range(4)])
    assert world.manager.open_calls == 0
    await session.submit_all([make_call(f"t{n}", "t", "page") for n in range(3)])
    world.manager.check()


async def test_what_the_open_sessions_of_a_tenant_keep_is_limited_until_they_are_closed(world: World) -> None:
    world.limit(Limits(kept_bytes_per_tenant=30_000))
    world.engine()
    session, other = world.manager.open_session("t"), world.manager.open_session("t")
    session.set("book", "x" * 10_000)
    with pytest.raises(SessionFull, match=r"the limit is 30000\. Close sessions that are done"):
        for number in range(100):
            (task,) = await session.submit_all([make_call(f"c{number}", "x" * 100)], is_delivered=False)
            await task.finished()
    assert 2 <= len(session.tasks()) <= 4 and not world.manager.has_room("t")
    with pytest.raises(SessionFull):
        session.declare("later")
    (task,) = await other.submit_all([make_call("first")], is_delivered=False)  # what keeps nothing may begin
    await task.finished()
    with pytest.raises(SessionFull):
        await other.submit_all([make_call("second")], is_delivered=False)
    await (await other.submit(make_call("waited for"))).finished()
    await (await world.manager.open_session("u").submit(make_call("c"))).finished()
    world.manager.check()
    await session.close()
    await other.submit_all([make_call("second")], is_delivered=False)
    world.manager.check()
    await other.close()
    world.manager.check()
    assert world.manager.has_room("t")


async def test_at_the_limit_sessions_that_keep_little_go_on_up_to_twice_as_much(world: World) -> None:
    most, a_call = 1_000_000, 7_000
    world.limit(Limits(kept_bytes_per_tenant=most))
    world.engine(script=lambda prompt: "yes")
    full, small = world.manager.open_session(), world.manager.open_session()
    full.set("book", "x" * (most - 1_100))
    full.kept.add(1_000)
    assert not world.manager.has_room("")
    small.declare("note")
    for call in ("first", "second"):
        await (await small.submit_all([make_call(call)], is_delivered=False))[0].finished()
    for session in (full, small):
        with pytest.raises(SessionFull):
            await session.submit_all([make_call("more")], is_delivered=False)
    with pytest.raises(SessionFull):
        for _ in range(1_000):
            session = world.manager.open_session()
            task = (await session.submit_all([make_call("c", "x" * 1_000)], is_delivered=False))[0]
            await task.finished()
    assert len(session.tasks()) == 0 and 2 * most <= sum(each.kept.size for each in world.manager.sessions())
    assert sum(each.kept.size for each in world.manager.sessions()) < 2 * most + a_call, "the last one that was let in"
    with pytest.raises(SessionFull):
        world.manager.open_session().declare("v")
    world.manager.check()


async def test_a_text_that_calls_share_is_kept_and_counted_once(world: World) -> None:
    world.engine(script=lambda prompt: "yes", context_tokens=50_000)
    session, other = world.manager.open_session(), world.manager.open_session()
    question = Template.parse("x" * 20_000 + "{{input:page}} {{output:answer}}")
    for binding in [{"page": Constant("p" * 5_000)}] * 3:  # the page as well
        made = await session.call_each(question, [binding] * 20)
        await asyncio.gather(*(tasks["answer"].finished() for tasks in made))
    assert 60 * 5_000 < session.kept.size - 25_000 < 60 * 6_000
    (task,) = (await other.call(question, {"page": Constant("q")})).values()
    await task.finished()
    assert other.kept.size > 25_000, "who else holds it may end before"
    world.manager.check()


async def test_a_text_counts_with_the_bytes_that_its_characters_take(world: World) -> None:
    world.engine(script=lambda prompt: "yes", context_tokens=50_000)
    latin, other = world.manager.open_session(), world.manager.open_session()
    for session, text in ((latin, "x" * 10_000), (other, "雪" * 10_000)):
        await (await session.submit(make_call("c", text))).finished()
    assert 9_900 < other.kept.size - latin.kept.size < 10_100


async def test_a_variable_that_would_be_too_much_to_keep_is_refused_and_another_is_not(world: World) -> None:
    world.limit(Limits(kept_bytes_per_tenant=30_000))
    session = world.manager.open_session()
    session.set("book", "x" * 20_000)
    kept = session.kept.size
    with pytest.raises(SessionFull, match=r"keep 2\d{4} bytes"):
        session.set("another", "x" * 10_000)
    with pytest.raises(UnknownVariable):
        session.variable("another")
    assert session.kept.size == kept
    session.set("another", "x" * 1_000)
    assert 22_000 < session.kept.size < 24_000
    world.manager.check()


async def test_a_tenant_is_told_what_it_and_the_server_leave_it(world: World) -> None:
    world.limit(Limits(open_calls=5, open_calls_per_tenant=3))
    world.engine().stall()
    assert world.manager.allowance("one") == (3, 3)
    await world.manager.open_session("one").submit(make_call("a"))
    assert world.manager.allowance("one") == (3, 2)
    await world.manager.open_session("two").submit_all([make_call("a"), make_call("b"), make_call("c")])
    assert world.manager.allowance("one") == (3, 1)
    assert Admission(Limits(open_calls=5, open_calls_per_tenant=9)).allowance("one") == (5, 5)


async def test_closing_lets_open_calls_finish_within_the_time_given(world: World) -> None:
    world.engine()
    tasks = await world.manager.open_session().submit_all([make_call("a"), make_call("b", "b", "out-a")])
    await world.manager.close(drain_s=60)
    assert [task.state for task in tasks] == [TaskState.FINISHED] * 2
    assert world.clock.now() < 60


async def test_closing_ends_what_does_not_finish_in_time_and_closes_the_engines(world: World) -> None:
    engine = world.engine()
    session = world.manager.open_session()
    engine.stall()
    task = await session.submit(make_call("a"))
    await world.manager.close(drain_s=5)
    assert isinstance(task.failure, Cancelled) and world.clock.now() == pytest.approx(5, abs=0.1)
    with pytest.raises(EngineLost):
        await engine.free(world.fleet.draw_context())
    with pytest.raises(QueueFull, match="shutting down"):
        world.manager.open_session()
    assert world.manager.sessions() == ()


async def test_closing_waits_for_no_engine_that_never_lets_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = world.engine()
    engine.stall()

    async def free(context: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(engine, "free", free)
    monkeypatch.setattr(manager, "_LET_GO_S", 0.05)
    task = await world.manager.open_session().submit(make_call("a"))
    await world.clock.sleep(1)
    assert task.state is TaskState.RUNNING
    await asyncio.wait_for(world.manager.close(), timeout=20)
    assert task.is_over and not list(world.fleet)
    with pytest.raises(EngineLost):
        await engine.fill(Fill(context=ContextId(1), content=Text("t")))


async def test_leaving_the_block_leaves_no_work_behind() -> None:
    before = asyncio.all_tasks()  # of other tests on this loop too, which may end meanwhile
    fleet = Fleet()
    engine = ScriptedEngine({"": "x" * 10_000}, EngineInfo(name="a", model="m", context_tokens=20_000))
    fleet.add(engine, engine.tokenizer)
    async with Manager(fleet) as manager:
        session = manager.open_session()
        tasks = await session.submit_all([make_call(f"c{n}") for n in range(20)])
        await anext(tasks[0].chunks())
    assert all(isinstance(task.failure, Cancelled) for task in tasks)
    assert asyncio.all_tasks() <= before


async def test_a_listener_that_raises_is_reported_hears_the_next_and_breaks_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []

    def bad(event: Event) -> None:
        heard.append(event)
        if len(heard) != 4:
            raise RuntimeError("disk full")

    world.manager.events.subscribe(bad)
    world.engine()
    task = await world.manager.open_session().submit(make_call("c"))
    assert (await task.finished()).text == "<c>"
    assert heard == world.events and len(heard) > 5
    assert caplog.text.count("failed on") == 2, "once for each time that it begins to fail"


async def test_a_listener_hears_everything_until_it_unsubscribes(world: World) -> None:
    heard: list[Event] = []
    unsubscribe = world.manager.events.subscribe(heard.append)
    session = world.manager.open_session("t", "n")
    unsubscribe()
    unsubscribe()
    await session.close()
    assert [type(event) for event in heard] == [SessionOpened]
    assert [type(event) for event in world.events] == [SessionOpened, SessionClosed]


def test_a_listener_may_unsubscribe_while_it_listens() -> None:
    stream, heard = EventStream(), []
    event = SessionClosed(at_s=0.0, session="s", tenant="")

    def once(event: Event) -> None:
        heard.append(event)
        unsubscribe()

    unsubscribe = stream.subscribe(once)
    stream.subscribe(heard.append)
    stream.emit(event)
    stream.emit(event)
    assert heard == [event] * 3


async def test_a_thousand_calls_of_twenty_apps_all_end_and_leave_nothing(world: World) -> None:
    world.limit(Limits())
    for name in "abc":
        world.engine(name, max_rows=8)

    async def app(number: int) -> str:
        session = world.manager.open_session(tenant=f"t{number % 3}")
        maps = [make_call(f"m{n}", f"{number}/{n}") for n in range(49)]
        *_, last = await session.submit_all([*maps, make_call("reduce", "r", *(call.output for call in maps))])
        text = (await last.finished()).text
        await session.close()
        return text

    answers = await asyncio.gather(*map(app, range(20)))
    assert answers == [f"<r {' '.join(f'<{number}/{n}>' for n in range(49))}>" for number in range(20)]
    world.manager.check()
