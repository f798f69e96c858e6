"""Clients that leave, engines that fail, long silences: what happens while an answer is on its way."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest

from parrot_compat.core.engines.scripted import Speed
from parrot_compat.core.errors import EngineError
from parrot_compat.core.events import Event, FirstToken, SessionClosed
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.sse import SseResponse

from .live import CAPACITY, Live, connect, live, send, until

PATH = "/v1/chat/completions"
ENDLESS = {"": "word " * 700}
HELLO = [{"role": "user", "content": "hello"}]
SLOW = Speed(step_s=0.002, chunk_tokens=1)


@asynccontextmanager
async def told(server: Live, kind: type[Event]) -> AsyncIterator[asyncio.Event]:  # type: ignore[valid-type]
    """An asyncio.Event that is set when an event of this kind has come."""
    has_come = asyncio.Event()
    end = server.manager.events.subscribe(lambda event: has_come.set() if isinstance(event, kind) else None)
    try:
        yield has_come
    finally:
        end()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "body"), [(PATH, {"messages": HELLO, "n": 3}), ("/v1/completions", {"prompt": ["a", "b"]})]
)
async def test_a_client_that_leaves_takes_its_work_with_it_down_to_the_context(
    path: str, body: dict[str, object], stream: bool
) -> None:
    async with (
        live(ENDLESS, speed=SLOW) as server,
        told(server, FirstToken) as begun,
        told(server, SessionClosed) as over,
    ):
        asked = json.dumps({**body, "stream": stream}).encode()
        _, writer = await connect(server.url, "POST", path, asked)
        async with asyncio.timeout(30):
            await begun.wait()
            assert server.engine.load().running > 0
            writer.close()
            await over.wait()
            await until(lambda: not server.manager.sessions() and not server.engine.load().running)
        assert server.manager.open_calls == 0
        server.manager.check()
        server.engine.check()
        assert server.engine.load().free_tokens == CAPACITY


async def test_a_client_that_stays_and_reads_nothing_holds_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SseResponse, "longest_pause_s", 0.2)
    async with live({"": "x" * 100_000}, context_tokens=200_000) as server, told(server, SessionClosed) as over:
        asked = {"messages": HELLO, "stream": True, "n": 8}  # some 20 MB, more than all buffers on the way hold
        _, writer = await connect(server.url, "POST", PATH, json.dumps(asked).encode())
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await over.wait()
            await until(lambda: not server.manager.open_calls and not server.manager.sessions())
        writer.transport.abort()


async def test_a_client_that_leaves_while_its_call_waits_is_forgotten() -> None:
    async with live(ENDLESS) as server, told(server, SessionClosed) as over:
        server.engine.stall()
        _, writer = await connect(server.url, "POST", PATH, json.dumps({"messages": HELLO}).encode())
        async with asyncio.timeout(30):
            await until(lambda: server.manager.open_calls > 0)
            writer.close()
            await over.wait()
        assert server.manager.open_calls == 0


async def test_an_engine_that_fails_in_the_midst_ends_the_stream_with_the_error() -> None:
    async with live(ENDLESS, speed=SLOW) as server:
        server.engine.fail_next(EngineError("out of paper"), after_tokens=3)
        reply = await send(server, "POST", PATH, {"messages": HELLO, "stream": True})
        assert reply.status == 200
        *_, last = [block for block in reply.body.decode().split("\n\n") if block]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "out of paper" in error["message"]

        server.engine.fail_next(EngineError("out of paper"), after_tokens=3)
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(model="org/scripted", messages=HELLO, stream=True)  # type: ignore[arg-type]
            with pytest.raises(openai.APIError, match="out of paper"):
                async for _ in stream:
                    pass


async def test_an_engine_that_fails_is_a_502_that_is_not_worth_a_retry() -> None:
    async with live(ENDLESS, speed=SLOW) as server:
        server.engine.fail_next(EngineError("out of paper"), after_tokens=3)
        reply = await send(server, "POST", PATH, {"messages": HELLO})
        assert reply.status == 502
        assert reply.headers["x-should-retry"] == "false"
        assert "out of paper" in reply.error["message"]


async def test_a_lost_engine_fails_its_answers_and_then_there_is_no_model() -> None:
    async with live(ENDLESS, speed=SLOW) as server, told(server, FirstToken) as begun:
        answer = asyncio.create_task(send(server, "POST", PATH, {"messages": HELLO}))
        await begun.wait()
        server.engine.die()
        reply = await answer
        assert reply.status == 502 and reply.error["code"] == "engine_lost"
        assert (await send(server, "POST", PATH, {"messages": HELLO})).error["code"] == "model_not_found"
        assert (await send(server, "GET", "/health")).status == 503


async def test_a_long_silence_is_filled_with_comments_that_clients_skip() -> None:
    async with live(ENDLESS, keep_alive_s=0.02) as server:
        server.engine.stall()
        body = json.dumps({"messages": HELLO, "stream": True, "max_tokens": 4}).encode()
        reader, writer = await connect(server.url, "POST", PATH, body)
        async with asyncio.timeout(30):
            for _ in range(3):
                await reader.readuntil(b": still here\n\n")
            server.engine.resume()
            rest = await reader.read()
        writer.close()
        assert b'"finish_reason":"length"' in rest
        assert b"data: [DONE]" in rest


async def test_a_stop_cuts_what_does_not_end_in_time() -> None:
    async with live(ENDLESS) as server:
        server.engine.stall()
        _, writer = await connect(server.url, "POST", PATH, json.dumps({"messages": HELLO, "stream": True}).encode())
        async with asyncio.timeout(30):
            await until(lambda: server.manager.open_calls > 0)
    assert server.manager.open_calls == 0
    writer.close()


async def test_a_chunked_body_is_cut_off_at_the_limit() -> None:
    async with live(limits=RequestLimits(body_bytes=1000)) as server:
        chunk = b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"
        reader, writer = await connect(
            server.url, "POST", PATH, chunk, {"transfer-encoding": "chunked", "content-length": None}
        )
        head = await reader.readline()
        writer.close()
        assert b" 413 " in head


async def test_a_body_that_is_too_long_is_answered_though_all_of_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parrot_compat.server.bodies._PATIENCE_S", 60.0)  # a busy machine may take long to send it
    async with live(limits=RequestLimits(body_bytes=2**20)) as server:
        reply = await send(server, "POST", PATH, b"x" * (2**20 + 300_000))
        assert reply.status == 413 and reply.error["code"] == "body_too_large"


@pytest.mark.parametrize("begun", [b"", b'{"mess'])
async def test_a_body_that_stops_coming_is_answered_and_its_connection_closed(begun: bytes) -> None:
    async with live(limits=RequestLimits(pace_s=0.01)) as server, asyncio.timeout(30):
        reader, writer = await connect(server.url, "POST", PATH, begun, {"content-length": "500", "connection": None})
        answer = await reader.read()  # to the end of the connection
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"code": "body_timeout"' in answer and b"x-request-id: " in answer


async def test_a_body_that_comes_slowly_is_read() -> None:
    body = json.dumps({"messages": HELLO, "max_tokens": 4}).encode()
    async with live(limits=RequestLimits(pace_s=30.0)) as server, asyncio.timeout(60):
        headers = {"content-length": str(len(body))}
        reader, writer = await connect(server.url, "POST", PATH, body[:9], headers)
        await send(server, "GET", "/health")  # by then the first request is being read
        writer.write(body[9:])
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_leaves_amid_its_body_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what others have left says what it has to say before
    caplog.clear()
    async with live() as server:
        _, writer = await connect(server.url, "POST", "/v1/embeddings", b'{"in', {"content-length": "500"})
        await send(server, "GET", "/health")  # by then the first request is being read
        writer.close()
        await send(server, "GET", "/health")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
