"""Request lines and headers that have no end: a connection keeps little of them, and not for long."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from parrot_compat.server.limits import RequestLimits

from .live import Live, connect, live, send

LONG = RequestLimits(head_bytes=4096)
SHORT = RequestLimits(head_s=0.4)
CHAT = "/v1/chat/completions"
HELLO = json.dumps({"messages": [{"role": "user", "content": "count"}]}).encode()


async def opened(server: Live, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def answer_to(server: Live, *pieces: bytes) -> bytes:
    """To the end of the connection. The server has a turn between the pieces."""
    reader, writer = await opened(server, b"")
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await send(server, "GET", "/health")
    answer = await reader.read()
    writer.close()
    return answer


ENDLESS = {
    "a header": (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ", b"x" * 3000, b"x" * 3000),
    "headers": (b"GET /health HTTP/1.1\r\nhost: localhost\r\n", b"x: 1\r\n" * 500, b"x: 1\r\n" * 500),
    "a path": (b"GET /", b"x" * 3000, b"x" * 3000),
    "in one piece": (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 6000 + b"\r\n\r\n",),
    "empty lines": (b"\r\n" * 1500, b"\r\n" * 1500),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_head_without_end_is_a_431_in_the_envelope_and_its_connection_closed(name: str) -> None:
    async with live(limits=LONG) as server, asyncio.timeout(30):
        answer = await answer_to(server, *ENDLESS[name])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ") and b"connection: close" in head
    error = json.loads(body)["error"]
    assert error["code"] == "headers_too_large" and "4096 bytes" in error["message"] and len(error) == 4


async def test_what_comes_behind_a_body_has_an_end_too() -> None:
    """Trailers are kept like headers."""
    async with live(limits=LONG) as server, asyncio.timeout(30):
        server.engine.stall()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        answer = await answer_to(server, head + b"2\r\n{}\r\n0\r\n", *[b"x: 1\r\n" * 500] * 2)
    assert answer.startswith(b"HTTP/1.1 431 ") and answer.count(b"HTTP/1.1") == 1


async def test_heads_and_bodies_within_the_limit_are_read_however_they_come() -> None:
    async with live(limits=LONG) as server, asyncio.timeout(60):
        headers = {"x": "x" * 3500, "content-length": str(len(HELLO) + 9000)}
        assert (await send(server, "POST", CHAT, HELLO + b" " * 9000, headers)).status == 200
        request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 3500 + b"\r\n"
        answer = await answer_to(server, request + b"\r\n" + request, b"connection: close\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: loc"])
async def test_a_connection_on_which_no_head_is_whole_in_time_is_closed(sent: bytes) -> None:
    async with live(limits=SHORT) as server, asyncio.timeout(30):
        assert await answer_to(server, sent) == b""


async def test_a_second_head_has_its_own_time_from_its_first_byte_on() -> None:
    async with live(limits=SHORT) as server, asyncio.timeout(30):
        reader, writer = await opened(server, b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await reader.readuntil(b"}")
        await asyncio.sleep(2 * SHORT.head_s)  # between two requests a connection rests, for as long as uvicorn lets it
        assert not reader.at_eof()
        writer.write(b"GET /version HTTP")
        assert await reader.read() == b""
        writer.close()


async def test_what_still_comes_behind_an_answer_keeps_no_connection_open() -> None:
    async with live(limits=SHORT, keys=["secret"]) as server, asyncio.timeout(30):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n"
        reader, writer = await opened(server, head)
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        reading = asyncio.create_task(reader.read())
        while not reading.done():
            writer.write(b" ")
            await asyncio.sleep(SHORT.head_s / 5)
        writer.close()


async def test_an_answer_may_take_longer_than_its_head() -> None:
    async with live(limits=SHORT) as server, asyncio.timeout(30):
        server.engine.stall()
        reader, writer = await connect(server.url, "POST", CHAT, HELLO)
        await asyncio.sleep(2 * SHORT.head_s)
        server.engine.resume()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_what_is_no_http_is_a_400_in_the_envelope() -> None:
    async with live() as server, asyncio.timeout(30):
        head, _, body = (await answer_to(server, b"hello there\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "invalid_http"


async def test_a_body_that_is_no_http_is_answered_as_well() -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    async with live() as server, asyncio.timeout(30):
        answer = await answer_to(server, head, b"no size at all\r\n")
        assert not server.manager.open_calls
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1 and b"invalid_http" in answer


async def test_without_httptools_heads_have_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "parrot_compat.server.heads", None)
    async with live(limits=LONG) as server, asyncio.timeout(30):
        assert (await send(server, "POST", CHAT, HELLO)).status == 200
        assert b" 400 " in await answer_to(server, *ENDLESS["a header"])
