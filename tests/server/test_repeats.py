"""Sent again under its key, a request gets the answer it got; service tiers and rate headers are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from parrot_compat.core.errors import EngineError
from parrot_compat.server.repeats import Repeats

from .live import connect, live, send, until
from .parrot.graphs import GRAPHS, SESSIONS, chain

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "the capital of France"}]}
KEY = {"idempotency-key": "k1"}
CHAT = "/v1/chat/completions"


async def test_the_same_request_again_is_answered_as_before_and_run_once() -> None:
    async with live() as server:
        first, again = [await send(server, "POST", CHAT, ASKED, KEY) for _ in range(2)]
        assert first.body == again.body and server.engine.generated == 1
        assert "x-parrot-repeated" not in first.headers and again.headers["x-parrot-repeated"] == "true"
        assert again.headers["x-parrot-call"] == first.headers["x-parrot-call"]
        other = await send(server, "POST", CHAT, ASKED | {"seed": 1}, KEY)
        assert other.status == 409 and other.headers["x-should-retry"] == "false"
        elsewhere = await send(server, "POST", "/v1/completions", {"prompt": "count"}, KEY)
        assert elsewhere.status == 200


async def test_a_session_that_is_opened_again_under_its_key_is_the_same_session() -> None:
    async with live() as server:
        first, again = [await send(server, "POST", SESSIONS, {"name": "s"}, KEY) for _ in range(2)]
        assert first.body == again.body and len(server.manager.sessions()) == 1
        assert "x-parrot-repeated" not in first.headers and again.headers["x-parrot-repeated"] == "true"
        other = await send(server, "POST", SESSIONS, {"name": "t"}, KEY)
        assert other.status == 409 and other.error["code"] == "idempotency_key_reused"


async def test_calls_and_graphs_that_come_again_say_that_they_were_accepted_before() -> None:
    async with live() as server, asyncio.timeout(30):
        session = (await send(server, "POST", SESSIONS, {})).json()["id"]
        function = {"template": "count{{output:y}}"}
        for path, body, headers in (
            (f"{SESSIONS}/{session}/calls", function, KEY),
            (f"{SESSIONS}/{session}/calls", function | {"id": "c"}, {}),
            (GRAPHS, chain(), KEY),
            (GRAPHS, chain(nonce="n"), {}),
        ):
            first, again = [await send(server, "POST", path, body, headers) for _ in range(2)]
            assert first.status == 200 and first.body == again.body
            assert "x-parrot-repeated" not in first.headers and again.headers["x-parrot-repeated"] == "true"
        streamed = json.dumps(chain(nonce="m", stream=True)).encode()
        for is_repeated in (False, True):
            reader, writer = await connect(server.url, "POST", GRAPHS, streamed)
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            assert b" 200 " in head and (b"x-parrot-repeated: true" in head) == is_repeated


async def test_a_key_is_its_tenants_own() -> None:
    async with live(keys=["a", "b"]) as server:
        for key in ("a", "b"):
            reply = await send(server, "POST", CHAT, ASKED, KEY | {"authorization": f"Bearer {key}"})
            assert reply.status == 200 and "x-parrot-repeated" not in reply.headers


async def test_what_failed_is_tried_again() -> None:
    async with live() as server:
        server.engine.fail_next(EngineError("out of paper"))
        assert (await send(server, "POST", CHAT, ASKED, KEY)).status == 502
        assert (await send(server, "POST", CHAT, ASKED, KEY)).status == 200


async def test_while_the_first_runs_a_second_is_told_to_wait() -> None:
    async with live() as server:
        server.engine.stall()
        first = asyncio.create_task(send(server, "POST", CHAT, ASKED, KEY))
        await until(lambda: server.engine.generated == 1)
        second = await send(server, "POST", CHAT, ASKED, KEY)
        assert second.status == 409 and second.error["code"] == "request_in_progress"
        assert second.headers["x-should-retry"] == "true"
        server.engine.resume()
        assert (await first).status == 200


async def test_a_client_that_leaves_may_ask_again() -> None:
    async with live() as server:
        server.engine.stall()
        _, writer = await connect(server.url, "POST", CHAT, json.dumps(ASKED).encode(), KEY)
        await until(lambda: server.engine.generated == 1)
        writer.close()
        await until(lambda: not server.manager.open_calls)
        server.engine.resume()
        assert (await send(server, "POST", CHAT, ASKED, KEY)).status == 200


async def test_a_stream_that_was_sent_to_its_end_comes_again_and_is_run_once() -> None:
    async with live() as server:
        streamed = ASKED | {"stream": True}
        for path, asked in ((CHAT, streamed), ("/v1/completions", {"prompt": "count", "stream": True})):
            generated = server.engine.generated
            first, again = [await send(server, "POST", path, asked, KEY) for _ in range(2)]
            assert first.body == again.body and server.engine.generated == generated + 1
            assert "x-parrot-repeated" not in first.headers and again.headers["x-parrot-repeated"] == "true"
            assert again.headers["content-type"] == first.headers["content-type"]
            assert again.headers["x-parrot-call"] == first.headers["x-parrot-call"]
        assert (await send(server, "POST", CHAT, ASKED, KEY)).status == 409


async def test_a_stream_that_failed_or_was_left_is_run_anew() -> None:
    async with live() as server:
        streamed = ASKED | {"stream": True}
        server.engine.fail_next(EngineError("out of paper"), after_tokens=8)
        assert b"out of paper" in (await send(server, "POST", CHAT, streamed, KEY)).body
        server.engine.stall()
        _, writer = await connect(server.url, "POST", CHAT, json.dumps(streamed).encode(), KEY)
        await until(lambda: server.engine.generated == 2)
        busy = await send(server, "POST", CHAT, streamed, KEY)
        assert busy.status == 409 and busy.error["code"] == "request_in_progress"
        writer.close()
        await until(lambda: not server.manager.open_calls)
        server.engine.resume()
        assert b"[DONE]" in (await send(server, "POST", CHAT, streamed, KEY)).body


async def test_small_answers_take_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parrot_compat.server.repeats._KEPT_BYTES", 10_000)
    repeats = Repeats()

    async def answered() -> Response:
        return Response(b"yes", media_type="text/plain")

    for number in range(50):
        headers = [(b"idempotency-key", str(number).encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
        assert (await repeats.once(Request(scope), "", b"body", answered)).body == b"yes"
        assert (await repeats.once(Request(scope), "", b"body", answered)).headers["x-parrot-repeated"] == "true"
    assert len(repeats) < 10


async def test_the_tier_that_was_asked_for_is_told() -> None:
    async with live() as server:
        for asked, told in ((None, None), ("auto", "default"), ("flex", "flex"), ("fast", "priority"), ("gold", None)):
            reply = await send(server, "POST", CHAT, ASKED | {"service_tier": asked})
            assert reply.json().get("service_tier") == told
        assert reply.headers["x-parrot-ignored"] == "service_tier"


async def test_what_a_tenant_may_still_have_open_is_told() -> None:
    async with live() as server:
        reply = await send(server, "GET", "/v1/models")
        most = int(reply.headers["x-ratelimit-limit-requests"])
        assert int(reply.headers["x-ratelimit-remaining-requests"]) == most
        server.engine.stall()
        waiting = asyncio.create_task(send(server, "POST", CHAT, ASKED | {"n": 3}))
        await until(lambda: server.engine.generated == 3)
        reply = await send(server, "GET", "/v1/models")
        assert int(reply.headers["x-ratelimit-remaining-requests"]) == most - 3
        server.engine.resume()
        await waiting
