"""One suite over both implementations: what an app sees is the same over HTTP and in this process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from parrot_compat.core.engines.scripted import Speed
from parrot_compat.core.errors import (
    AlreadySettled,
    BadTemplate,
    CallerError,
    Cancelled,
    EngineError,
    NoEngineForModel,
    ParrotError,
    PromptTooLong,
    TransformFailed,
    UnknownSession,
    UpstreamFailed,
)
from parrot_compat.core.events import Event, FirstToken
from parrot_compat.integrations.application.output import Output
from parrot_compat.integrations.application.session import Session
from parrot_compat.integrations.application.variable import Variable

pytest.importorskip("fastapi")

from tests.integrations.worlds import World, world

ECHO = "{{input:word}} {{output:echo}}"


@pytest.fixture(params=["remote", "embedded"])
def there(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(request.param) as made:
        yield made


def echo(session: Session, word: str | Variable, **more: Any) -> Variable:
    return session.call(ECHO, {"word": word}, **more)["echo"]


# ---- calls and variables -------------------------------------------------------------------------------


def test_a_call_answers_its_template(there: World) -> None:
    with there.application.open_session() as session:
        assert echo(session, "hello").get() == "<hello>"


def test_a_later_output_reads_the_earlier_one(there: World) -> None:
    with there.application.open_session() as session:
        made = session.call("a {{output:first}} b {{input:first}} {{output:second}}")
        assert made["first"].get() == "<a>"
        assert made["second"].get() == "<b <a>>"


def test_a_call_reads_another_that_has_not_begun_and_nobody_waits(there: World) -> None:
    there.stall()
    with there.application.open_session() as session:
        last = echo(session, "x")
        for _ in range(5):
            last = echo(session, last)
        last.accepted.result(60)
        described = session.describe()
        there.resume()
        assert last.get() == "<<<<<<x>>>>>>"
    assert [call["state"] for call in described["calls"]].count("waiting") == 5


def test_transforms_are_applied_between_calls_and_to_what_is_read(there: World) -> None:
    with there.application.open_session() as session:
        first = echo(session, "name=Ada; name=Bob")
        name = first.transform({"regex": {"pattern": "name=([A-Za-z]+)", "group": 1}})
        assert name.get() == "Ada"
        assert echo(session, name.transform({"truncate": 2})).get() == "<Ad>"
        assert first.get() == "<name=Ada; name=Bob>"


def test_a_text_form_is_continued_as_it_stands(there: World) -> None:
    with there.application.open_session() as session:
        made = session.call("once {{output:a}} then {{output:b}}", form="text")
        assert made["b"].get() == "<once <once> then>"


def test_sampling_is_of_all_outputs_or_of_one(there: World) -> None:
    template = "abcdefgh {{output:a}} and {{output:b}} so {{output:c}}"
    with there.application.open_session() as session:
        outputs = {"b": Output(max_tokens=2), "c": Output(stop="s")}
        made = session.call(template, sampling=Output(max_tokens=4), outputs=outputs)
        assert [made[name].get() for name in "abc"] == ["<abc", "<a", "<"]


def test_a_variable_may_be_written_after_calls_that_read_it(there: World) -> None:
    with there.application.open_session() as session:
        topic = session.variable(name="topic")
        said = echo(session, topic)
        topic.set("late")
        assert said.get() == "<late>" and topic.get() == "late"
        with pytest.raises(AlreadySettled, match="topic"):
            topic.set("later")
        with pytest.raises(AlreadySettled):
            said.set("mine")


def test_a_text_is_a_variable_too(there: World) -> None:
    with there.application.open_session() as session:
        assert echo(session, session.variable("given")).get() == "<given>"
        assert session.variable("read at once").get() == "read at once"


def test_a_function_over_many_bindings_is_one_group(there: World) -> None:
    from parrot_compat.integrations.application.request import Request

    there.stall()
    with there.application.open_session() as session:
        request = Request(template=ECHO, function="echo")
        many = session.call_each(request, [{"word": word} for word in ("a", "b", "c")])
        assert session.call_each(request, []) == []
        many[0]["echo"].accepted.result(60)
        echo(session, "alone").accepted.result(60)
        calls = session.describe()["calls"]
        groups = {call["group"] for call in calls[:3]}
        there.resume()
        assert [made["echo"].get() for made in many] == ["<a>", "<b>", "<c>"]
    assert len(groups) == 1 and None not in groups
    assert calls[3]["group"] is None


# ---- waiting -------------------------------------------------------------------------------------------


def test_a_stream_comes_in_pieces_and_spells_the_text(there: World) -> None:
    with there.application.open_session() as session:
        said = echo(session, "a text that is long enough to come in pieces")
        pieces = list(said.stream())
        assert len(pieces) > 3 and "".join(pieces) == said.get()
        assert list(said.transform("strip", {"truncate": 6}).stream()) == ["<a tex"]
        assert list(said.stream()) == [said.get()]


def test_a_reader_that_runs_out_of_time_may_come_back(there: World) -> None:
    there.stall()
    with there.application.open_session() as session:
        said = echo(session, "slow")
        with pytest.raises(TimeoutError):
            said.get(timeout_s=0.05)
        there.resume()
        assert said.get(timeout_s=60) == "<slow>"


async def test_what_is_awaited_for_is_what_its_call_is_quick_at(there: World) -> None:
    await asyncio.to_thread(there.stall)
    async with there.application.open_session() as session:
        first = echo(session, "a")  # it runs already: nothing that is said later makes it another's
        second = echo(session, first)
        echo(session, first)  # nobody awaits this one
        waiting = asyncio.create_task(second.aget(objective="throughput"))
        kinds: list[str] = []
        while sorted(kinds[1:]) != ["background", "throughput"]:  # they are sent side by side: either may arrive first
            kinds = [call["objective"] for call in (await session.adescribe())["calls"]]
            await asyncio.sleep(0.001)
        await asyncio.to_thread(there.resume)
        assert await waiting == "<<a>>"


async def test_everything_can_be_awaited(there: World) -> None:
    async with there.application.open_session() as session:
        topic = session.variable(name="topic")
        said = echo(session, topic)
        await topic.aset("x")
        assert await said == "<x>"
        assert await asyncio.gather(said, said.transform("strip"), said.aget()) == ["<x>"] * 3
        pieces = [piece async for piece in echo(session, "a longer text to stream").astream()]
        assert len(pieces) > 1 and "".join(pieces) == "<a longer text to stream>"
    with pytest.raises(UnknownSession):
        echo(session, "y")


def test_variables_can_be_read_in_loops_other_than_the_one_they_were_made_in(there: World) -> None:
    with there.application.open_session() as session:
        said = echo(session, "x")

        async def read() -> str:
            return await said + await echo(session, said)

        assert [asyncio.run(read()) for _ in range(2)] == ["<x><<x>>"] * 2


# ---- failure -------------------------------------------------------------------------------------------


def test_a_failed_call_fails_its_readers_with_its_cause(there: World) -> None:
    there.inside(lambda: there.engine.fail_next(EngineError("out of paper"), after_tokens=2))
    with there.application.open_session() as session:
        first = echo(session, "a")
        second = echo(session, first)
        with pytest.raises(UpstreamFailed, match="out of paper") as failed:
            second.get()
        with pytest.raises(EngineError, match="out of paper"):
            first.get()
        with pytest.raises(EngineError, match="out of paper"):
            list(first.stream())
        assert failed.value.variable == first.accepted.result()
        assert failed.value.cause.message == "out of paper"


@pytest.mark.parametrize(
    ("word", "more", "kind", "said"),
    [
        ("x", {"model": "nobody/serves-this"}, NoEngineForModel, "nobody/serves-this"),
        ("x" * 5000, {}, PromptTooLong, "prompt is too long"),
    ],
)
def test_what_is_refused_is_told_where_it_is_read_and_to_whoever_hangs_on_it(
    there: World, word: str, more: dict[str, Any], kind: type[ParrotError], said: str
) -> None:
    with there.application.open_session() as session:
        refused = echo(session, word, **more)
        hanging = echo(session, echo(session, refused))
        with pytest.raises(kind, match=said) as error:
            refused.get()
        assert type(error.value) is kind
        with pytest.raises(UpstreamFailed, match=said) as upstream:
            hanging.get()
        assert isinstance(upstream.value.cause, kind)
        assert session.describe()["calls"] == []


def test_a_transform_that_does_not_apply_fails_the_call_that_wanted_it(there: World) -> None:
    with there.application.open_session() as session:
        first = echo(session, "words")
        hanging = echo(session, first.transform("first_json"))
        assert first.get() == "<words>"
        with pytest.raises(TransformFailed, match="first_json"):
            hanging.get()
        with pytest.raises(TransformFailed, match="first_json"):
            first.transform("first_json").get()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda session: session.call("no holes"), "output"),
        (lambda session: session.call("{{inputs:x}} {{output:y}}"), "character 0"),
        (lambda session: session.call(ECHO), "word"),
        (lambda session: session.call(ECHO, {"word": "x", "more": "y"}), "more"),
        (lambda session: session.call(ECHO, {"word": 5}), "int"),
        (lambda session: session.call(ECHO, {"word": "x"}, outputs={"other": Output()}), "other"),
        (lambda session: session.variable("x").transform("rot13"), "rot13"),
        (lambda session: session.call(ECHO, {"word": session.application.open_session().variable("x")}), "session"),
    ],
)
def test_what_contradicts_itself_is_refused_at_once(there: World, call: Any, said: str) -> None:
    with there.application.open_session() as session:
        with pytest.raises(BadTemplate, match=said):
            call(session)
        assert session.describe()["calls"] == []


# ---- the whole of a session ------------------------------------------------------------------------------


def test_cancelling_ends_what_runs_and_leaves_the_session_open(there: World) -> None:
    there.stall()
    with there.application.open_session() as session:
        first = echo(session, "a")
        second = echo(session, first)
        second.accepted.result(60)
        session.cancel()
        there.resume()
        for variable in (first, second):
            with pytest.raises(Cancelled):
                variable.get()
        assert echo(session, "b").get() == "<b>"


def test_closing_ends_everything_and_is_done_once(there: World) -> None:
    there.stall()
    session = there.application.open_session("an app")
    running, read = echo(session, "a"), session.variable("kept")
    running.accepted.result(60)
    assert read.get() == "kept"
    session.close()
    session.close()
    assert there.inside(there.manager.sessions) == () and there.inside(lambda: there.manager.open_calls) == 0
    assert read.get() == "kept"
    with pytest.raises(UnknownSession):
        running.get()
    with pytest.raises(UnknownSession):
        session.describe()
    with pytest.raises(UnknownSession):
        echo(session, "b")


def test_a_session_that_nobody_holds_any_more_ends_by_itself(there: World) -> None:
    there.stall()
    echo(there.application.open_session(), "a").accepted.result(60)
    echo(there.application.session, "b").accepted.result(60)

    def are_gone() -> bool:
        gc.collect()  # each time: what was still under way may have held them before
        return not there.manager.sessions() and not there.manager.open_calls

    there.until(are_gone)


def test_a_session_expires_where_nothing_uses_it(there: World) -> None:
    session = there.application.open_session(ttl_s=0.01)
    assert session.id
    there.until(lambda: not there.manager.sessions())
    with pytest.raises(UnknownSession):
        echo(session, "a").get()
    session.close()


def test_a_session_that_cannot_be_opened_says_so_where_it_is_read(there: World) -> None:
    with there.application.open_session("x" * 5000) as session:
        with pytest.raises(CallerError, match="name"):
            echo(session, "a").get()
        with pytest.raises(CallerError, match="name"):
            session.describe()


# ---- parity --------------------------------------------------------------------------------------------


def description(made: World) -> dict[str, Any]:
    """A session with every kind of end in it, described, less what differs from run to run."""
    with made.application.open_session("the app") as session:
        first = session.call("{{input:word}} {{output:echo}}", {"word": "one"}, function="say", objective="background")
        second = echo(session, first["echo"].transform("strip"), sampling=Output(max_tokens=3))
        second.get()
        broken = echo(session, second.transform("first_json"))
        hanging = echo(session, broken)
        never = session.variable(name="never")
        never.accepted.result(60)
        with pytest.raises(ParrotError):
            hanging.get()
        told = session.describe()
    drawn = {"id", "submitted_s", "ready_s", "started_s", "first_token_s", "finished_s", "queue_s", "slack_s"}
    assert drawn - {"id"} <= set(told["calls"][0])
    calls = [{name: value for name, value in call.items() if name not in drawn} for call in told["calls"]]
    return {"name": told["name"], "calls": calls, "variables": told["variables"]}


def test_both_describe_the_same_run_in_the_same_words() -> None:
    with world("remote") as remote, world("embedded") as embedded:
        assert description(remote) == description(embedded)


def test_both_have_the_same_methods_and_signatures() -> None:
    import inspect

    from parrot_compat.integrations.application.embedded import EmbeddedHost
    from parrot_compat.integrations.application.host import Host
    from parrot_compat.integrations.application.remote_host import RemoteHost

    verbs = {name for name, value in vars(Host).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert len(verbs) == 11
    for verb in verbs:
        port = inspect.signature(getattr(Host, verb))
        assert inspect.signature(getattr(RemoteHost, verb)) == port
        assert inspect.signature(getattr(EmbeddedHost, verb)) == port


def test_a_slow_answer_is_streamed_while_it_is_written() -> None:
    for kind in ("remote", "embedded"):
        with world(kind, Speed(step_s=0.001, chunk_tokens=1)) as there, there.application.open_session() as session:

            def stop(event: Event, made: World = there) -> None:
                if isinstance(event, FirstToken):
                    made.engine.stall()  # the rest is not there yet, however late this test looks

            there.inside(lambda made=there, stop=stop: made.manager.events.subscribe(stop))
            pieces = echo(session, "abc").stream()
            assert next(pieces) == "<"
            assert there.inside(lambda made=there: made.manager.open_calls) == 1
            pieces.close()  # type: ignore[attr-defined]
