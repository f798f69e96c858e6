"""Answers that nobody reads: a whole one is the transport's as soon as it is given, and must not stay for ever."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from parrot_compat.server.heads import HeadProtocol, limited
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.serving import send_json

from .leaping import Leaping, leaping
from .live import Live, connect, live, send

TEXT = "é" * 2**23
"""More than all buffers on the way to a client hold."""


def path_of_text(server: Live) -> str:
    session = server.manager.open_session()
    session.set("v", TEXT)
    return f"/v1/parrot/sessions/{session.id}/variables/v"


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_whole_answer_that_nobody_reads_is_let_go_of(monkeypatch: pytest.MonkeyPatch, connection: str) -> None:
    is_lost = asyncio.Event()

    def lost(self: HeadProtocol, error: Exception | None) -> None:
        is_lost.set()
        before(self, error)

    before = HeadProtocol.connection_lost
    async with live(limits=RequestLimits(pace_s=0.2)) as server, asyncio.timeout(60):
        path = path_of_text(server)
        monkeypatch.setattr(HeadProtocol, "connection_lost", lost)
        reader, writer = await connect(server.url, "GET", path, headers={"connection": connection})
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await is_lost.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(TEXT.encode()))
        writer.transport.abort()


async def test_a_whole_answer_is_read_to_its_end() -> None:
    async with live() as server, asyncio.timeout(60):
        assert (await send(server, "GET", path_of_text(server))).json()["text"] == TEXT


# ---- a slow reader, in a moment ------------------------------------------------------------------------


class Unread(asyncio.Transport):
    """A transport of which a test says how much is unread."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = 0
        self.is_closed = self.is_cut = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_cut = True

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.unread += len(data)

    def resume_reading(self) -> None: ...


async def answering(loop: Leaping, size: int, more: bool = False) -> tuple[HeadProtocol, Unread]:
    """A connection on which so much has been answered, or so much of it; nothing has been read."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * size, "more_body": more})
        if more:
            await asyncio.Event().wait()

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_keep_alive=75)
    protocol = limited(RequestLimits())(config, ServerState(), {})  # type: ignore[call-arg]
    assert isinstance(protocol, HeadProtocol)
    transport = Unread()
    protocol.connection_made(transport)
    protocol.data_received(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await loop.leap(0.0)
    assert transport.unread >= size
    return protocol, transport


def test_who_reads_slowly_gets_all_of_a_whole_answer() -> None:
    async def read(loop: Leaping) -> None:
        protocol, transport = await answering(loop, 5 * 2**20)
        protocol.pause_writing()
        while transport.unread > 2**16:
            transport.unread -= 2**16
            await loop.leap(59.0)
            assert not transport.is_cut
        protocol.resume_writing()
        await loop.leap(59.0)
        assert not transport.is_cut
        transport.unread = 0
        for _ in range(5):
            await loop.leap(61.0)
        assert not transport.is_cut and transport.is_closed, "at its time, by uvicorn"

    leaping(read)


@pytest.mark.parametrize("is_closed", [False, True])
def test_who_stops_reading_is_cut_off_and_so_is_one_that_is_closed_already(is_closed: bool) -> None:
    async def read(loop: Leaping) -> None:
        protocol, transport = await answering(loop, 5 * 2**20)
        protocol.pause_writing()
        if is_closed:
            transport.close()
        transport.unread -= 2**16
        await loop.leap(60.0)
        assert not transport.is_cut
        transport.unread -= 2**16 - 1
        await loop.leap(59.0)
        assert not transport.is_cut
        await loop.leap(1.0)
        assert transport.is_cut

    leaping(read)


def test_the_little_that_is_left_of_an_answer_has_to_be_read_too() -> None:
    async def read(loop: Leaping) -> None:
        _, transport = await answering(loop, 1000)
        await loop.leap(59.0)
        assert not transport.is_cut
        await loop.leap(2.0)
        assert transport.is_cut

    leaping(read)


def test_a_stream_that_goes_on_is_not_cut_for_what_is_on_its_way() -> None:
    async def read(loop: Leaping) -> None:
        protocol, transport = await answering(loop, 2**17, more=True)
        protocol.pause_writing()
        transport.unread = 2**14
        protocol.resume_writing()
        for _ in range(5):
            transport.unread += 1000  # another event, and more was read than that or less: nobody knows
            await loop.leap(61.0)
        assert not transport.is_cut
        protocol.pause_writing()
        await loop.leap(61.0)
        assert transport.is_cut

    leaping(read)


# ---- what is sent ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [("plain", True), ("é ☃ 雪 \U0001d530 \u2028", True), ("half of a pair: \ud800", False)],
)
def test_an_answer_is_in_utf_8_and_what_that_cannot_say_is_escaped(text: str, is_plain: bool) -> None:
    body = bytes(send_json({"text": text}).body)
    assert json.loads(body) == {"text": text}
    assert (text.encode("utf-8", "surrogatepass") in body) == is_plain and body.isascii() == (
        text == "plain" or not is_plain
    )
