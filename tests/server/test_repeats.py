"""Sent again under its key, a request gets the answer it got; service tiers and rate headers are told."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from parrot_compat.core.errors import EngineError
from parrot_compat.server.bodies import Raw
from parrot_compat.server.repeats import Repeats
from parrot_compat.server.sse import SseResponse

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
    for number in range(50):
        assert (await answered(repeats, str(number), b"yes")).body == b"yes"
        assert (await answered(repeats, str(number), b"yes")).headers["x-parrot-repeated"] == "true"
    assert len(repeats) < 10


def keyed(name: str) -> Request:
    headers = [(b"idempotency-key", name.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers})


async def answered(repeats: Repeats, name: str, body: bytes) -> Response:
    async def work() -> Response:
        return Response(body, media_type="text/plain")

    return await repeats.once(keyed(name), "", Raw(b"asked"), work)


async def test_large_answers_that_come_at_once_are_kept_as_far_as_there_is_room() -> None:
    repeats, may, begun = Repeats(), asyncio.Event(), 0

    async def large() -> Response:
        nonlocal begun
        begun += 1
        await may.wait()
        return Response(bytes(8 * 2**20), media_type="text/plain")

    waiting = [asyncio.create_task(repeats.once(keyed(f"k{n}"), "", Raw(b"asked"), large)) for n in range(40)]
    await until(lambda: begun == 40)
    may.set()
    given = [weakref.ref(response) for response in await asyncio.gather(*waiting)]
    waiting.clear()
    await asyncio.sleep(0)  # in this turn the loop itself holds what it has just brought
    gc.collect()
    kept = sum(len(response.body) for each in given if (response := each()) is not None)
    assert 32 * 2**20 < kept <= 64 * 2**20
    again = [await answered(repeats, f"k{n}", b"anew") for n in range(40)]
    assert sum("x-parrot-repeated" in one.headers for one in again) == kept // 2**23


async def test_an_answer_that_is_too_large_to_be_kept_takes_no_others_place() -> None:
    repeats = Repeats()
    await answered(repeats, "small", b"yes")
    for _ in range(2):
        whole = await answered(repeats, "large", bytes(9 * 2**20))
        assert "x-parrot-repeated" not in whole.headers and len(repeats) == 1
    assert (await answered(repeats, "small", b"no")).body == b"yes"


@pytest.mark.parametrize(("events", "is_kept"), [(3, True), (5, False)])
async def test_a_stream_is_remembered_as_far_as_it_may_be_kept(
    monkeypatch: pytest.MonkeyPatch, events: int, is_kept: bool
) -> None:
    monkeypatch.setattr("parrot_compat.server.repeats._LONGEST", 4000)
    repeats, pieces, sent = Repeats(), [], bytearray()

    class Piece(bytearray):
        """It can be seen to be gone."""

    async def said() -> AsyncGenerator[bytes, None]:
        for _ in range(events):
            piece = Piece(b"x" * 1000)
            pieces.append(weakref.ref(piece))
            yield piece  # type: ignore[misc]
        del piece
        gc.collect()
        assert [piece() is not None for piece in pieces[:-1]] == [is_kept] * (events - 1)

    async def work() -> Response:
        return SseResponse(said(), owner=AsyncExitStack())

    async def send(message: Message) -> None:
        sent.extend(message.get("body", b""))

    async def never() -> Message:
        return await asyncio.Event().wait() and {}

    response = await repeats.once(keyed("k"), "", Raw(b"asked"), work)
    await response({"type": "http"}, never, send)
    assert len(sent) == 1000 * events and len(repeats) == is_kept


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
