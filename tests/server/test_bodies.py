"""Bodies that are many, or come slowly, or say what nobody needs: they take no memory from others."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from parrot_compat.server.bodies import OpenBodies, read_raw
from parrot_compat.server.errors import ApiError
from parrot_compat.server.limits import RequestLimits

from .leaping import Leaping, leaping
from .live import Live, connect, live, send, until

CHAT = "/v1/chat/completions"
ROOM = RequestLimits(open_body_bytes=2000)
HELLO = {"messages": [{"role": "user", "content": "count"}]}
NONE: dict[str, str] = {}


def of_size(size: int, **more: Any) -> bytes:
    body = json.dumps(HELLO | more).encode()
    return body + b" " * (size - len(body))


# ---- their pace --------------------------------------------------------------------------------------


def read_in_pieces(size: int, pieces: int, each_s: float) -> bytes:
    """A body whose pieces come so long after each other, with 100 bytes in 60 s to be brought."""
    limits = RequestLimits(pace_bytes=100, pace_s=60.0)
    left = pieces

    async def read(loop: Leaping) -> bytes:
        async def receive() -> Message:
            nonlocal left
            await loop.leap(each_s)
            left -= 1
            return {"type": "http.request", "body": b"x" * size, "more_body": left > 0}

        async def send(message: Message) -> None:
            raise AssertionError("nothing is answered here")

        bodies: list[bytes] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            bodies.append(await read_raw(Request(scope, receive), limits))

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "state": {"tenant": ""}}
        await OpenBodies(app, limits, is_shared=False)(scope, receive, send)
        return bodies[0]

    return leaping(read)


def test_a_body_that_keeps_its_pace_may_take_as_long_as_it_needs() -> None:
    assert len(read_in_pieces(size=100, pieces=1000, each_s=59.0)) == 100_000
    assert len(read_in_pieces(size=25, pieces=1000, each_s=14.0)) == 25_000
    assert len(read_in_pieces(size=1, pieces=50, each_s=1.0)) == 50, "the rest of one is as much as there is"


@pytest.mark.parametrize(("size", "each_s"), [(1, 59.0), (25, 29.0), (99, 59.0), (100, 61.0)])
def test_a_body_that_only_trickles_is_refused(size: int, each_s: float) -> None:
    with pytest.raises(ApiError, match=r"in 60 s \d+ bytes of it came, and 100 have to") as refused:
        read_in_pieces(size=size, pieces=1000, each_s=each_s)
    assert refused.value.problem.status == 408 and refused.value.problem.headers["connection"] == "close"


# ---- all of them together ----------------------------------------------------------------------------


async def begun(server: Live, declared: int, headers: dict[str, str] = NONE) -> asyncio.StreamWriter:
    """A request whose body does not come to its end."""
    _, writer = await connect(server.url, "POST", CHAT, b"{", {"content-length": str(declared), **headers})
    await send(server, "GET", "/health")  # by then it is being read
    return writer


async def accepted(server: Live, body: bytes, headers: dict[str, str] = NONE) -> None:
    """Some time after a body is gone there is room for another."""
    while (reply := await send(server, "POST", CHAT, body, headers)).status != 200:
        assert reply.status in (429, 503)


async def test_bodies_that_are_being_read_are_so_many_bytes_at_most() -> None:
    async with live(limits=ROOM) as server, asyncio.timeout(60):
        writer = await begun(server, 1500)
        refused = await send(server, "POST", CHAT, of_size(501))
        assert refused.status == 503 and "2001 bytes here; the limit is 2000" in refused.error["message"]
        assert refused.error["code"] == "queue_full" and refused.headers["retry-after"]
        assert (await send(server, "POST", CHAT, of_size(500))).status == 200
        writer.close()
        await accepted(server, of_size(2000))


async def test_of_several_tenants_none_has_more_than_half_of_the_room() -> None:
    async with live(limits=ROOM, keys=["a", "b", "c"]) as server, asyncio.timeout(60):
        a, b, c = [{"authorization": f"Bearer {key}"} for key in "abc"]
        writer = await begun(server, 900, a)
        refused = await send(server, "POST", CHAT, of_size(101), a)
        assert refused.status == 429 and "1001 bytes for this tenant; the limit is 1000" in refused.error["message"]
        assert refused.headers["retry-after"]
        others = await begun(server, 1000, b)
        full = await send(server, "POST", CHAT, of_size(101), c)
        assert full.status == 503 and full.error["code"] == "queue_full"
        assert (await send(server, "POST", CHAT, of_size(100), c)).status == 200
        for each in (writer, others):
            each.close()
        await accepted(server, of_size(1000), c)


async def test_two_names_of_one_tenant_are_no_several() -> None:
    async with live(limits=ROOM, keys=["a", "a"]) as server, asyncio.timeout(60):
        assert (await send(server, "POST", CHAT, of_size(2000), {"authorization": "Bearer a"})).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_counts_until_its_request_is_answered(stream: bool) -> None:
    async with live(limits=ROOM) as server, asyncio.timeout(60):
        server.engine.stall()
        waiting = asyncio.create_task(send(server, "POST", CHAT, of_size(1500, stream=stream)))
        await until(lambda: server.engine.generated == 1)
        assert (await send(server, "POST", CHAT, of_size(501))).status == 503
        server.engine.resume()
        assert (await waiting).status == 200
        await accepted(server, of_size(2000))


async def test_a_body_of_unknown_length_counts_as_it_comes() -> None:
    async with live(limits=ROOM) as server, asyncio.timeout(60):
        writer = await begun(server, 1500)
        body = of_size(501)
        chunks = b"%x\r\n%b\r\n" % (400, body[:400]) + b"%x\r\n%b\r\n0\r\n\r\n" % (101, body[400:])
        headers = {"transfer-encoding": "chunked", "content-length": None}
        reader, other = await connect(server.url, "POST", CHAT, chunks, headers)
        assert b" 503 " in await reader.readline()
        for each in (writer, other):
            each.close()


async def test_a_request_that_is_refused_for_its_body_leaves_nothing_counted() -> None:
    async with live(limits=RequestLimits(body_bytes=1500, open_body_bytes=2000)) as server, asyncio.timeout(60):
        for _ in range(3):
            assert (await send(server, "POST", CHAT, of_size(1501))).status == 413
            assert (await send(server, "POST", CHAT, b"x" * 1400)).status == 400
        await accepted(server, of_size(1500))


# ---- what is kept of one -----------------------------------------------------------------------------

JUNK = {"junk": "x" * 2**22, "metadata": {"more": "y" * 2**22}}
WORDS = {"input": "count"}
WAITING: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, HELLO | JUNK | {"parrot": {"junk": "z" * 2**20}}),
    "stream": (CHAT, HELLO | JUNK | {"stream": True}),
    "completion": ("/v1/completions", {"prompt": "count", **JUNK}),
    "stream of a completion": ("/v1/completions", {"prompt": "count", "stream": True, **JUNK}),
    "response": ("/v1/responses", {**WORDS, "junk": "x" * 2**22}),
    "message": ("/v1/messages", HELLO | JUNK | {"model": "org/scripted", "max_tokens": 9}),
}


@pytest.mark.parametrize("name", WAITING)
async def test_while_a_call_waits_nothing_is_kept_of_its_body_but_what_it_asks(name: str) -> None:
    path, asked = WAITING[name]
    body = json.dumps(asked).encode()
    async with live() as server, asyncio.timeout(120):
        assert (await send(server, "POST", path, body)).status == 200  # what is made once has been made
        server.engine.stall()
        gc.collect()
        tracemalloc.start()
        try:
            reader, writer = await connect(server.url, "POST", path, body, {"idempotency-key": "k"})
            await until(lambda: server.engine.generated == 2)
            await send(server, "GET", "/health")  # by then all that is to be done before has been done
            gc.collect()
            kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 2**20 < most
        server.engine.resume()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
