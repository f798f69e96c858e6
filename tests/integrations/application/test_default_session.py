"""The session of calls that name none: shared, kept as long as it is of use, and opened anew."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from parrot_compat.core.errors import EngineError, SessionFull, UnknownSession
from parrot_compat.core.events import Event, SessionOpened
from parrot_compat.core.manager import Limits

pytest.importorskip("fastapi")

from tests.integrations.worlds import Kind, World, world

from .test_application import echo


@pytest.fixture(params=["remote", "embedded"])
def there(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(request.param) as made:
        yield made


def test_calls_that_name_no_session_share_one_as_long_as_it_is_held(there: World) -> None:
    first = echo(there.application.session, "a")
    assert there.application.session is first.session
    assert echo(there.application.session, first).get() == "<<a>>"


def test_the_default_session_is_opened_anew_where_it_could_not_be_or_is_gone(there: World) -> None:
    application, gone = there.application, UnknownSession("it has expired")
    opens, host = application.host.open_session, application.host
    host.open_session = refuse = _Refusal(EngineError("not there yet"))  # type: ignore[assignment,method-assign]
    try:
        with pytest.raises(EngineError, match="not there yet"):
            echo(application.session, "a").get()
    finally:
        host.open_session = opens  # type: ignore[method-assign]
    assert refuse.times == 1
    assert echo(application.session, "b").get() == "<b>", "and not what kept the first from opening"
    held = application.session
    submits = host.submit
    host.submit = _Refusal(gone)  # type: ignore[assignment,method-assign]
    try:
        with pytest.raises(UnknownSession):
            echo(held, "c").get()
    finally:
        host.submit = submits  # type: ignore[method-assign]
    assert application.session is not held
    assert echo(application.session, "d").get() == "<d>"


def expire(there: World) -> None:
    """Every session that is open, as if nothing had used it for long."""

    async def close() -> None:
        for session in there.manager.sessions():
            await session.close()

    there.loop.run(close())


def test_the_default_session_is_opened_anew_under_an_app_that_holds_what_it_has_read(there: World) -> None:
    application = there.application
    read = echo(application.session, "a")
    assert read.get() == "<a>"
    expire(there)
    assert echo(application.session, "b").get() == "<b>"
    expire(there)
    view = read.transform({"truncate": 2})
    later = [echo(application.session, word) for word in ("c", view, "d")]  # all of them find it gone
    assert [variable.get() for variable in later] == ["<c>", "<<a>", "<d>"]
    assert len(there.manager.sessions()) == 1
    expire(there)
    assert application.session.variable("e").transform("strip").get() == "e"
    assert read.get() == "<a>"


def test_what_was_not_read_before_the_default_session_expired_is_gone_and_no_other_text_comes_for_it(
    there: World,
) -> None:
    application = there.application
    unread, streamed = echo(application.session, "a"), echo(application.session, "b")
    unread.accepted.result(60), streamed.accepted.result(60)
    expire(there)
    reads = echo(application.session, unread)
    assert echo(application.session, "c").get() == "<c>"
    for variable in (unread, reads, streamed):
        with pytest.raises(UnknownSession):
            variable.get()
    with pytest.raises(UnknownSession):
        "".join(streamed.stream())
    assert echo(application.session, "d").get() == "<d>"


@pytest.mark.parametrize("verb", ["get", "stream", "set", "describe", "cancel"])
def test_a_default_session_that_is_found_gone_is_not_used_again(there: World, verb: str) -> None:
    held = there.application.session
    unread = held.variable()
    unread.accepted.result(60)
    expire(there)
    asks = {
        "get": unread.get,
        "stream": lambda: list(unread.stream()),
        "set": lambda: unread.set("x"),
        "describe": held.describe,
        "cancel": held.cancel,
    }
    with pytest.raises(UnknownSession):
        asks[verb]()
    assert there.application.session is not held
    assert echo(there.application.session, "b").get() == "<b>"


def test_a_session_that_an_app_has_opened_is_not_opened_again(there: World) -> None:
    session = there.application.open_session()
    assert echo(session, "a").get() == "<a>"
    expire(there)
    for _ in range(2):
        with pytest.raises(UnknownSession):
            echo(session, "b").get()


@pytest.mark.parametrize("kind", get_args(Kind))
def test_calls_that_name_no_session_are_never_full(kind: Kind) -> None:
    with world(kind, admits=Limits(kept_bytes_per_tenant=30_000)) as there:
        opened: set[str] = set()

        def note(event: Event) -> None:
            if isinstance(event, SessionOpened):
                opened.add(event.session)

        there.inside(lambda: there.manager.events.subscribe(note))
        held = echo(there.application.session, "held")
        texts = [echo(there.application.session, str(number)).get() for number in range(50)]
        assert texts == [f"<{number}>" for number in range(50)]
        assert len(opened) > 1
        assert there.application.session is held.session
        assert echo(there.application.session, held).get() == "<<held>>", "also in another session of the host"
        there.until(lambda: len(there.manager.sessions()) == 1)


def test_a_full_session_stays_until_what_was_not_read_of_it_is_let_go_and_ends_with_the_default_one() -> None:
    with world("embedded", admits=Limits(kept_bytes_per_tenant=30_000)) as there:
        session = there.application.session
        unread = echo(session, "held")
        unread.accepted.result(60)
        first = there.manager.sessions()[0]
        there.until(lambda: not there.manager.open_calls)
        there.inside(lambda: first.kept.add(30_000 - first.kept.size))
        assert echo(session, "a").get() == "<a>"
        assert not first.is_closed and len(there.manager.sessions()) == 2
        unread = echo(session, "b")
        there.until(lambda: gc.collect() is not None and first.is_closed)
        assert unread.get() == "<b>"
        there.until(lambda: not there.manager.open_calls)
        session.close()
        assert not there.manager.sessions()


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_session_that_an_app_has_opened_is_full_where_it_is(kind: Kind) -> None:
    with world(kind, admits=Limits(kept_bytes_per_tenant=30_000)) as there:
        session = there.application.open_session()
        with pytest.raises(SessionFull):
            for _ in range(50):
                echo(session, "a").get()
        assert len(there.manager.sessions()) == 1


class _Refusal:
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.times = 0

    async def __call__(self, *_: Any, **__: Any) -> Any:
        self.times += 1
        raise self.error


def test_a_session_that_could_not_be_opened_is_not_kept(there: World) -> None:
    host, application = there.application.host, there.application
    opens = host.open_session
    host.open_session = _Refusal(EngineError("not there yet"))  # type: ignore[assignment,method-assign]
    try:
        session = application.open_session()
        kept = weakref.ref(session)
        with pytest.raises(EngineError):
            echo(session, "a").get()
    finally:
        host.open_session = opens  # type: ignore[method-assign]
    del session
    there.until(lambda: gc.collect() is not None and kept() is None)
