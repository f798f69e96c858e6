from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.integrations.labels import session as label
from parrot_compat.integrations.plans.sessions import RunSession, labelled
from parrot_compat.integrations.remote import Endpoint

HERE, THERE = (Endpoint(base_url=f"http://{name}/v1", api_key="none") for name in ("here", "there"))


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(server, name) of every session that a server was told the end of."""
    heard: list[tuple[str, str]] = []

    def end(server: Endpoint, name: str) -> None:
        heard.append((server.base_url, name))

    monkeypatch.setattr("parrot_compat.integrations.plans.sessions.end_session_later", end)
    return heard


def test_a_session_ends_behind_the_last_of_what_goes_on_in_it_at_every_server_that_knows_it(ended: list[Any]) -> None:
    session = RunSession()
    session.begin()
    with session.going_on():  # a request that outlives its run
        name = session.tell(HERE)
        assert session.tell(THERE) == session.tell(HERE) == name
        session.end()
        assert not ended, "a session was ended under a request of the app"
    assert sorted(ended) == [(HERE.base_url, name), (THERE.base_url, name)]


def test_a_name_that_was_ended_is_never_told_again(ended: list[Any]) -> None:
    session = RunSession()
    with session.going_on():
        first = session.tell(HERE)
    with session.going_on():
        second = session.tell(HERE)
    assert first != second
    assert [name for _, name in ended] == [first, second]


def test_nobody_hears_of_the_end_of_a_session_that_was_not_told(ended: list[Any]) -> None:
    session = RunSession()
    with session.going_on():
        assert session.hints(HERE) == {}
    assert not ended


def test_a_call_that_is_alone_is_not_told_and_the_next_one_is() -> None:
    session = RunSession()
    with session.going_on():
        session.count()
        assert session.hints(HERE) == {}
        session.count()
        assert session.hints(HERE) == {"session": session.tell(HERE)}


def test_a_label_of_the_apps_own_is_told_from_the_first_call_and_never_ended(ended: list[Any]) -> None:
    run = RunSession()
    assert labelled(run) is run
    with label("report 17"):
        named = labelled(run)
    with named.going_on():
        assert named.hints(HERE) == {"session": "report 17"}
    assert not ended
