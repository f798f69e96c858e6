"""The end of a server: what is still in progress when its time is over is told so, and logged once."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Iterator

import pytest

from .live import connect, live, send, until

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
HELLO = {"model": "org/scripted", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}


class Kept(logging.Handler):
    """Each record once, whichever way it comes."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not any(record is other for other in self.records):
            self.records.append(record)


@pytest.fixture
def errors() -> Iterator[list[logging.LogRecord]]:
    """What is logged as an error; whether uvicorn's own log goes where others go hangs on who has used it before."""
    gc.collect()  # what others have left says what it has to say before
    kept, logs = Kept(), (logging.getLogger(), logging.getLogger("uvicorn.error"))
    for log in logs:
        log.addHandler(kept)
    yield kept.records
    for log in logs:
        log.removeHandler(kept)


async def test_a_whole_answer_that_is_cut_off_is_a_503_in_the_envelope(errors: list[logging.LogRecord]) -> None:
    async with asyncio.timeout(60):
        async with live() as server:
            server.engine.stall()
            chat = asyncio.create_task(send(server, "POST", CHAT, HELLO, {"x-request-id": "mine"}))
            message = asyncio.create_task(send(server, "POST", MESSAGES, HELLO))
            await until(lambda: server.manager.open_calls == 2)
        reply = await chat
        assert reply.status == 503 and reply.error["code"] == "shutting_down"
        assert reply.headers["x-request-id"] == "mine" and reply.headers["retry-after"] == "5"
        reply = await message
        assert reply.status == 503 and reply.json()["error"]["type"] == "overloaded_error"
        assert reply.headers["request-id"]
    (error,) = errors
    assert error.getMessage().startswith("Cancel 2 running task") and error.exc_info is None


async def test_a_stream_that_is_cut_off_ends_with_an_error(errors: list[logging.LogRecord]) -> None:
    async with asyncio.timeout(60):
        async with live() as server:
            server.engine.stall()
            body = json.dumps({**HELLO, "stream": True}).encode()
            chat, chat_writer = await connect(server.url, "POST", CHAT, body)
            await chat.readuntil(b'"role":"assistant"')
            message, message_writer = await connect(server.url, "POST", MESSAGES, body)
            await message.readuntil(b"\r\n\r\n")  # its first event waits for the engine
            await until(lambda: server.manager.open_calls == 2)
        rest = await chat.read()
        assert rest.endswith(b'"code":"shutting_down"}}\n\n\r\n0\r\n\r\n') and b"[DONE]" not in rest
        rest = await message.read()
        assert rest.endswith(b"\r\n0\r\n\r\n") and rest.count(b"event: error\n") == 1
        assert b'"type":"overloaded_error"' in rest.rpartition(b"event: ")[2]
        chat_writer.close()
        message_writer.close()
    (error,) = errors
    assert error.getMessage().startswith("Cancel 2 running task") and error.exc_info is None
    assert server.manager.open_calls == 0


async def test_a_second_stop_leaves_no_time_and_is_told_all_the_same() -> None:
    async with asyncio.timeout(60), live() as server:
        server.engine.stall()
        chat = asyncio.create_task(send(server, "POST", CHAT, HELLO))
        await until(lambda: server.manager.open_calls == 1)
        server.listener.stop()
        server.listener.stop()
        assert (await chat).error["code"] == "shutting_down"
