"""What is left when an application closes: texts that were read, errors for whoever waits, nothing on the host."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import Cancelled, UnknownSession, UpstreamFailed
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.integrations.application.application import Application
from parrot_compat.integrations.application.embedded import EmbeddedHost
from parrot_compat.integrations.application.remote_host import connect
from parrot_compat.integrations.application.session import Session
from parrot_compat.integrations.application.variable import Variable

pytest.importorskip("fastapi")

from tests.integrations.worlds import World, world
from tests.server.live import until


@pytest.fixture(params=["remote", "embedded"])
def there(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(request.param) as made:
        yield made


def echo(session: Session, word: str) -> Variable:
    return session.call("{{input:word}} {{output:echo}}", {"word": word})["echo"]


def test_a_text_that_was_read_is_there_when_all_is_closed(there: World) -> None:
    with there.application.open_session() as session:
        streamed, got = echo(session, " hello "), echo(session, "again")
        assert "".join(streamed.stream()) == "<hello>" and got.get() == "<again>"
        generated = there.engine.generated
    there.application.close()
    assert streamed.get() == "<hello>" and list(streamed.stream()) == ["<hello>"]
    assert got.transform({"regex": "[a-z]+"}).get() == "again"
    assert there.engine.generated == generated


def test_whoever_waits_when_the_application_closes_is_told_that_it_closed(there: World) -> None:
    late = there.application.open_session().variable(name="late")
    late.accepted.result(60)
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            late.get()
        except BaseException as error:
            failed.append(error)

    async def wait_beside_others() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(late.aget())
            waiting.set()

    waiting = threading.Event()
    threads = [
        threading.Thread(target=wait),
        threading.Thread(target=lambda: failed.append(_raised(wait_beside_others))),
    ]
    for thread in threads:
        thread.start()
    waiting.wait(60)
    there.until(lambda: bool(there.manager.sessions()))
    there.application.close()
    for thread in threads:
        thread.join(60)
    kinds = {type(error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error) for error in failed}
    assert len(failed) == 2 and kinds <= {Cancelled, UpstreamFailed, UnknownSession}


def _raised(work: Callable[[], Coroutine[Any, Any, None]]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # which one it is is what is asked
        asyncio.run(work())
    return caught.value


def test_what_an_application_started_ends_with_it_though_its_session_is_held() -> None:
    with world("remote") as there:
        there.stall()
        with connect(there.url) as application:
            held = application.open_session()
            variable = echo(held, "x")
            variable.accepted.result(60)
            assert there.inside(lambda: there.manager.open_calls) == 1
        there.until(lambda: not there.manager.open_calls and not there.manager.sessions())
        assert not held.is_closed


async def test_a_close_that_is_broken_off_is_made_up_for_when_nobody_holds_the_session() -> None:
    asked: list[str] = []

    class Slow(EmbeddedHost):
        async def close_session(self, session: str) -> None:
            asked.append(session)
            await (asyncio.Event().wait() if len(asked) == 1 else super().close_session(session))

    @asynccontextmanager
    async def start() -> AsyncIterator[Manager]:
        fleet = Fleet()
        engine = ScriptedEngine(lambda prompt: "hi")
        fleet.add(engine, engine.tokenizer)
        async with Manager(fleet) as manager:
            yield manager

    async with Application(Slow(start)) as application:
        session = application.open_session()
        closing = asyncio.create_task(session.aclose())
        await until(lambda: len(asked) == 1)
        closing.cancel()
        await asyncio.wait([closing])
        del session, closing
        gc.collect()
        await until(lambda: len(asked) == 2)
    assert len(set(asked)) == 1
