from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import openai
import pytest

from parrot_compat.integrations import remote
from parrot_compat.integrations.errors import ParrotConnectionError, sdk_errors
from parrot_compat.integrations.remote import Endpoint

from .forks import held, in_a_child
from .other_server import OtherServer, Reply


def endpoint(url: str = "http://127.0.0.1:9/v1", **more: object) -> Endpoint:
    return Endpoint(base_url=url, api_key="secret", **more)  # type: ignore[arg-type]


def test_equal_endpoints_share_one_client_and_others_do_not() -> None:
    assert remote.client(endpoint()) is remote.client(endpoint())
    assert remote.client(endpoint()) is not remote.client(endpoint(timeout_s=3.0))


def test_an_endpoint_does_not_show_its_key_or_headers() -> None:
    shown = repr(endpoint(headers=(("authorization", "hidden"),)))
    assert "secret" not in shown and "hidden" not in shown


def test_who_cannot_be_asked_is_named_without_the_password() -> None:
    with pytest.raises(ParrotConnectionError) as failed, sdk_errors():
        remote.client(endpoint("http://me:hunter2@127.0.0.1:9/v1", max_retries=0)).models.list()
    assert str(failed.value) == "no answer from http://127.0.0.1:9/v1/models: [Errno 111] Connection refused"


def test_a_key_that_cannot_be_sent_is_not_printed(other: OtherServer) -> None:
    asked = Endpoint(base_url=other.url, api_key="secret\n", max_retries=0)
    with pytest.raises(ParrotConnectionError) as failed, sdk_errors():
        remote.client(asked).models.list()
    assert str(failed.value) == f"no answer from {other.url}/models: LocalProtocolError"


def test_without_a_timeout_only_connecting_is_limited() -> None:
    timeout = remote.client(endpoint()).timeout
    assert isinstance(timeout, openai.Timeout)
    assert timeout.read is None and timeout.connect == remote.CONNECT_TIMEOUT_S


def test_a_timeout_is_the_servers_and_not_of_waiting_for_a_connection_of_our_own() -> None:
    for limits, of_connecting in (({}, 3.0), ({"connect_timeout_s": 1.0}, 1.0)):
        timeout = remote.client(endpoint(timeout_s=3.0, **limits)).timeout
        assert isinstance(timeout, openai.Timeout)
        assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (of_connecting, 3.0, 3.0, None)


def test_no_more_clients_are_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CLIENTS_KEPT", 3)
    first = remote.client(endpoint("http://127.0.0.1:9/first/v1"))
    for index in range(remote.CLIENTS_KEPT):
        remote.client(endpoint(f"http://127.0.0.1:9/{index}/v1"))
    assert remote.client(endpoint("http://127.0.0.1:9/first/v1")) is not first


def test_every_loop_has_its_own_async_client_which_is_closed_with_the_loop() -> None:
    async def both() -> list[openai.AsyncOpenAI]:
        return [await remote.async_client(endpoint()), await remote.async_client(endpoint())]

    first, again = asyncio.run(both())
    other, _ = asyncio.run(both())
    assert first is again and first is not other
    assert first.is_closed() and other.is_closed()


def test_an_async_client_that_somebody_holds_stays_open_when_others_take_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "CLIENTS_KEPT", 2)

    async def run() -> openai.AsyncOpenAI:
        held = await remote.async_client(endpoint("http://127.0.0.1:9/held/v1"))
        for index in range(4):
            await remote.async_client(endpoint(f"http://127.0.0.1:9/{index}/v1"))
        gc.collect()
        await asyncio.sleep(0.01)  # a guard that is collected closes its client in a task
        assert not held.is_closed()
        return held

    assert asyncio.run(run()).is_closed(), "the loop closes it in the end"


def test_a_loop_leaves_no_open_connection_behind(other: OtherServer) -> None:
    async def ask() -> None:
        client = await remote.async_client(endpoint(other.url))
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        asyncio.run(ask())
        asyncio.run(ask())
        gc.collect()
    assert len(other.requests) == 2


def test_closed_loops_are_forgotten() -> None:
    async def use() -> int:
        await remote.async_client(endpoint())
        return len(remote._async_clients)

    counts = [asyncio.run(use()) for _ in range(3)]
    assert counts[0] == counts[2]


def test_a_forked_child_does_not_use_its_parents_connections() -> None:
    parents = remote.client(endpoint())
    assert in_a_child(lambda: remote.client(endpoint()) is parents) is False


def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    with held(remote._lock):
        assert in_a_child(lambda: bool(remote.client(endpoint()))) is True


def test_a_model_card_is_found_by_name_or_is_the_first(other: OtherServer) -> None:
    cards = [
        {"id": name, "object": "model", "created": 0, "owned_by": "x", "max_model_len": n}
        for name, n in [("a", 1), ("b", 2)]
    ]
    other.answer = lambda request: Reply({"object": "list", "data": cards})
    found = [remote.model_card(endpoint(other.url), name) for name in (None, "b", "c")]
    assert [card and card["max_model_len"] for card in found] == [1, 2, None]


def test_no_model_card_comes_from_a_server_that_is_not_there() -> None:
    assert remote.model_card(endpoint(), None) is None


async def test_a_server_on_this_machine_is_reached_past_a_proxy(
    other: OtherServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    there = endpoint(other.url, headers=(("x-new", "client"),), max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    answer = remote.client(there).chat.completions.create(model="m", messages=messages)
    assert answer.choices[0].message.content == "you said hi"
    client = await remote.async_client(there)
    assert (await client.chat.completions.create(model="m", messages=messages)).model == "m"


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://10.0.0.1/v1", False),
        ("https://api.example.org/v1", False),
    ],
)
def test_which_servers_are_on_this_machine(url: str, is_local: bool) -> None:
    assert endpoint(url).is_local is is_local


@pytest.mark.parametrize("url", ["http://x:1/v1", "http://x:1/v1/", "http://x:1"])
def test_where_the_paths_outside_openais_begin(url: str) -> None:
    assert endpoint(url).root_url == "http://x:1"
