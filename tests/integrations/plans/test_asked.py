from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from parrot_compat.integrations import servers
from parrot_compat.integrations.plans.asked import Asked
from parrot_compat.integrations.remote import Endpoint

from ..other_server import OtherServer, Reply
from ..strangers import is_a_stranger, pass_time

OURS = Reply({"object": "parrot.capabilities"})
AWAY = [Reply({"error": {"message": "not yet"}}, status) for status in (408, 429, 502, 503)]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(servers, "ASK_AGAIN_S", 0.0)
    yield


def told(endpoint: Endpoint) -> object:
    """What a request tells this server of its session; what is asked of the server behind that is over then."""
    with Asked(hints=lambda: {"session": "report 17"}).sending(endpoint, {}) as sent:
        said = (sent.get("extra_body") or {}).get("parrot")
    for thread in threading.enumerate():
        if thread.name == "parrot-capabilities":
            thread.join(60)
    return said


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("away", AWAY, ids=lambda reply: str(reply.status))
def test_a_server_that_is_not_ready_when_it_is_first_asked_is_told_hints_later(other: OtherServer, away: Reply) -> None:
    endpoint = Endpoint(base_url=other.url, api_key="none")
    other.capabilities = away
    assert told(endpoint) is None
    other.capabilities = OURS
    assert told(endpoint) is None  # it is asked behind this request
    assert told(endpoint) == {"v": 1, "session": "report 17"}


@pytest.mark.usefixtures("no_pause")
def test_a_server_that_is_not_there_may_be_there_later() -> None:
    with socket.socket() as nobody:  # held, so that no other program comes to listen there
        nobody.bind(("127.0.0.1", 0))
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", api_key="none")
        is_a_stranger(endpoint.base_url)
        assert told(endpoint) is None
        nobody.listen()
        asking = threading.Thread(target=told, args=(endpoint,))
        asking.start()
        nobody.settimeout(60)
        nobody.accept()[0].close()  # it was asked again
        asking.join(60)


@pytest.mark.usefixtures("no_pause")
def test_a_server_that_is_not_ours_is_asked_again_only_after_a_long_while(
    other: OtherServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint(base_url=other.url, api_key="none")
    assert told(endpoint) is None  # a proxy may say that there is no such path, before the server is there
    other.capabilities = OURS
    assert told(endpoint) is None and told(endpoint) is None
    pass_time(monkeypatch, servers.ASK_A_STRANGER_AGAIN_S)
    assert told(endpoint) is None
    assert told(endpoint) == {"v": 1, "session": "report 17"}


def test_between_two_tries_there_is_a_pause(other: OtherServer) -> None:
    endpoint = Endpoint(base_url=other.url, api_key="none")
    other.capabilities = AWAY[0]
    assert told(endpoint) is None
    other.capabilities = OURS
    assert told(endpoint) is None and told(endpoint) is None
