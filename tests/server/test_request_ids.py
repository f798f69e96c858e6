"""What a client tells of a failure, its request id, finds the failure in the log."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest

from parrot_compat.core.errors import EngineError
from parrot_compat.core.manager import Limits
from parrot_compat.server.sse import SseResponse

from .live import live, send
from .test_sse import Source, silent

ASKED = {"messages": [{"role": "user", "content": "hello"}]}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("parrot_compat.server")]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_log_of_a_failed_engine_names_the_request(caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    async with live() as server:
        server.engine.fail_next(EngineError("out of paper"), after_tokens=3)
        headers = {"x-request-id": "that-one"}
        reply = await send(server, "POST", "/v1/chat/completions", {**ASKED, "stream": stream}, headers)
        assert reply.status == (200 if stream else 502) and reply.headers["x-request-id"] == "that-one"
        (line,) = logged(caplog)
        assert "(request that-one)" in line and "out of paper" in line


async def test_the_log_of_a_client_s_own_mistake_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    async with live() as server:
        assert (await send(server, "POST", "/v1/chat/completions", {"messages": []})).status == 400
        assert logged(caplog) == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_server_counts_its_refusals_and_does_not_warn_of_each(
    caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    async with live(admits=Limits(open_calls=1)) as server:
        reply = await send(server, "POST", "/v1/chat/completions", {**ASKED, "n": 2, "stream": stream})
        assert (reply.status, reply.error["code"]) == (503, "queue_full")
        assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
        told = (await send(server, "GET", "/metrics")).body.decode()
        assert 'parrot_requests_total{route="/v1/chat/completions",status="503"} 1.0' in told


async def test_an_accident_in_a_stream_is_logged_with_its_request_and_where_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent: list[bytes] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message.get("body", b""))

    events = Source(b"x", error=ZeroDivisionError("oops")).events()
    scope = {"type": "http", "state": {"request_id": "that-one"}}
    async with asyncio.timeout(30):
        await SseResponse(events, owner=AsyncExitStack())(scope, silent, send)
    assert b"oops" not in b"".join(sent) and b'"server_error"' in sent[-2]
    (record,) = [record for record in caplog.records if record.name.startswith("parrot_compat.server")]
    assert "(request that-one)" in record.getMessage() and record.exc_info is not None
