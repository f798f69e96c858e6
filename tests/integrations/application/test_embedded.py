"""What only the embedded implementation has: it starts and ends its engines itself."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import parrot_compat
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import Cancelled, ModelRefused
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.integrations.application import application as application_module
from parrot_compat.integrations.application.application import Application
from parrot_compat.integrations.application.embedded import EmbeddedHost


class Starts:
    """A manager that counts its lives."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.threads: list[threading.Thread] = []
        self.ends = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Manager]:
        self.threads.append(threading.current_thread())
        if self.failures:
            raise self.failures.pop(0)
        fleet = Fleet()
        engine = ScriptedEngine(lambda prompt: "hi")
        fleet.add(engine, engine.tokenizer)
        async with Manager(fleet) as manager:
            yield manager
        self.ends += 1


def test_it_starts_once_in_a_thread_of_its_own_and_ends_with_its_block() -> None:
    starts = Starts()
    with Application(EmbeddedHost(starts), name="my app") as application:
        assert [application.open_session().call("{{output:x}}")["x"].get() for _ in range(3)] == ["hi"] * 3
        (thread,) = starts.threads
        assert thread.is_alive() and thread.name == "my app"
    assert starts.ends == 1 and not thread.is_alive()
    application.close()
    with pytest.raises(Cancelled, match="my app is closed"):
        application.open_session()


@pytest.mark.parametrize("sessions", [1, 3])
def test_what_is_still_loading_when_it_is_closed_is_given_up(sessions: int) -> None:
    loading, given_up = threading.Event(), threading.Event()

    @asynccontextmanager
    async def start() -> AsyncIterator[Manager]:
        loading.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        yield Manager(Fleet())  # never

    application = Application(EmbeddedHost(start))
    opened = [application.open_session() for _ in range(sessions)]
    answers = [session.call("{{output:x}}")["x"] for session in opened]
    assert loading.wait(60)
    application.close()
    assert given_up.is_set()
    for answer in answers:
        with pytest.raises(Cancelled, match="closed"):
            answer.get()


def test_without_a_block_it_starts_with_its_first_use() -> None:
    starts = Starts()
    application = Application(EmbeddedHost(starts))
    assert not starts.threads
    assert application.open_session().call("{{output:x}}")["x"].get() == "hi"
    application.close()
    assert starts.ends == 1


def test_sessions_opened_at_once_share_one_start() -> None:
    starts = Starts()
    with Application(EmbeddedHost(starts)) as application:
        sessions = [application.open_session() for _ in range(5)]
        assert len({session.id for session in sessions}) == 5
    assert len(starts.threads) == 1


def test_what_keeps_it_from_starting_is_told_and_it_may_be_tried_again() -> None:
    starts = Starts(ModelRefused("no such model"), ModelRefused("still none"))
    application = Application(EmbeddedHost(starts))
    with pytest.raises(ModelRefused, match="no such model"):
        application.start()
    with pytest.raises(ModelRefused, match="still none"):
        application.open_session().call("{{output:x}}")["x"].get()
    assert application.open_session().call("{{output:x}}")["x"].get() == "hi"
    application.close()


def test_a_block_that_cannot_start_leaves_no_thread() -> None:
    starts = Starts(ModelRefused("no such model"))
    with pytest.raises(ModelRefused), Application(EmbeddedHost(starts)):
        pytest.fail("it runs")
    assert not starts.threads[0].is_alive()


async def test_it_can_be_used_from_an_event_loop() -> None:
    starts = Starts()
    async with (
        Application(EmbeddedHost(starts)) as application,
        application.open_session() as session,
    ):
        assert await session.call("{{output:x}}")["x"] == "hi"
    assert starts.ends == 1 and not starts.threads[0].is_alive()
    refusing = Starts(ModelRefused("no such model"))
    with pytest.raises(ModelRefused):
        async with Application(EmbeddedHost(refusing)):
            pytest.fail("it runs")
    assert not refusing.threads[0].is_alive()


async def test_a_reader_that_is_cancelled_leaves_the_others_alone() -> None:
    async with Application(EmbeddedHost(Starts())) as application, application.open_session() as session:
        late = session.variable(name="late")
        leaves, stays = asyncio.create_task(late.aget()), asyncio.create_task(late.aget())
        await asyncio.sleep(0)
        leaves.cancel()
        await late.aset("now")
        assert await stays == "now"
        with pytest.raises(asyncio.CancelledError):
            await leaves


def test_an_application_that_nobody_holds_any_more_ends() -> None:
    starts = Starts()
    application = Application(EmbeddedHost(starts)).start()
    (thread,) = starts.threads
    del application
    gc.collect()
    thread.join(60)
    assert starts.ends == 1 and not thread.is_alive()


def test_its_own_thread_cannot_wait_for_itself() -> None:
    with Application(EmbeddedHost(Starts())) as application:
        variable = application.open_session().variable("x")

        async def inside() -> str:
            with pytest.raises(RuntimeError, match="would wait for itself"):
                variable.get()
            return await variable

        assert application.loop.run(inside()) == "x"


def test_after_a_fork_it_says_that_it_belongs_to_the_parent() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this platform does not fork")
    with Application(EmbeddedHost(Starts())) as application:
        pid = os.fork()
        if pid == 0:
            try:
                application.open_session()
            except RuntimeError as error:
                os._exit(0 if "another process" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("lock", ["the application's", "the process'"])
def test_a_fork_while_another_thread_holds_a_lock_leaves_a_child_that_ends(lock: str) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this platform does not fork")
    with Application(EmbeddedHost(Starts())) as application, application:
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with application.loop._lock if lock == "the application's" else application_module._lock:
                held.set()
                done.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(30)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # ends a child that waits
            with application_module._lock:
                application.loop.close()
            os._exit(0)
        done.set()
        holder.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_public_name_takes_the_settings_of_a_server() -> None:
    pytest.importorskip("torch")
    with pytest.raises(ModelRefused, match="huge"), parrot_compat.embedded("builtin:huge", device="cpu"):
        pytest.fail("it runs")
    with pytest.raises(TypeError, match="speed"):
        parrot_compat.embedded(speed=11)
