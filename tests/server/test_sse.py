"""Merging, keeping alive and letting go: the parts of a stream by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from parrot_compat.core.errors import Cancelled, EngineError
from parrot_compat.server.sse import merge, while_connected, with_keep_alive


class Source:
    """Yields what it is given, then fails, or waits for ever; knows whether it was closed."""

    def __init__(self, *items: bytes, error: Exception | None = None, is_endless: bool = False) -> None:
        self.items, self.error, self.is_endless, self.is_closed = items, error, is_endless, False

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            for item in self.items:
                yield item
            if self.is_endless:
                await asyncio.Event().wait()
            if self.error is not None:
                raise self.error
        finally:
            self.is_closed = True


async def silent() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_what_is_merged_keeps_each_sources_order() -> None:
    sources = [Source(*(f"{name}{number}".encode() for number in range(50))) for name in "abc"]
    seen: list[list[bytes]] = [[], [], []]
    async for number, item in merge([source.events() for source in sources]):
        seen[number].append(item)
    assert seen == [list(source.items) for source in sources]


async def test_the_first_failure_ends_the_merge_and_closes_every_source() -> None:
    sources = [Source(is_endless=True), Source(b"x", error=EngineError("no")), Source(is_endless=True)]
    seen = []
    with pytest.raises(EngineError, match="no"):
        async for _, item in merge([source.events() for source in sources]):
            seen.append(item)
    assert seen == [b"x"]
    assert all(source.is_closed for source in sources)


async def test_a_merge_that_is_left_closes_every_source() -> None:
    sources = [Source(b"x", b"y", is_endless=True) for _ in range(3)]
    merged = merge([source.events() for source in sources])
    await anext(merged)
    await merged.aclose()
    assert all(source.is_closed for source in sources)


async def test_keep_alive_adds_comments_only_to_silence() -> None:
    assert [item async for item in with_keep_alive(Source(b"a", b"b").events(), 5)] == [b"a", b"b"]
    source = Source(b"a", is_endless=True)
    stream = with_keep_alive(source.events(), 0.001)
    first, *comments = [await anext(stream) for _ in range(3)]
    assert first == b"a"
    assert all(comment.startswith(b":") and comment.endswith(b"\n\n") for comment in comments)
    await stream.aclose()
    assert source.is_closed


async def test_keep_alive_passes_a_failure_on() -> None:
    with pytest.raises(EngineError, match="no"):
        async for _ in with_keep_alive(Source(b"a", error=EngineError("no")).events(), 5):
            pass


async def test_work_ends_with_its_result_or_its_own_error() -> None:
    async def fail() -> None:
        raise EngineError("no")

    assert await while_connected(silent, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(EngineError, match="no"):
        await while_connected(silent, fail())


async def test_work_has_let_go_before_its_request_ends() -> None:
    has_let_go = False

    async def work() -> None:
        nonlocal has_let_go
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            has_let_go = True

    messages: list[Message] = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def leave() -> Message:
        await asyncio.sleep(0)
        return messages.pop(0)

    with pytest.raises(Cancelled):
        await while_connected(leave, work())
    assert has_let_go
