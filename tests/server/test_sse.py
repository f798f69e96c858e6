"""Merging, keeping alive and letting go: the parts of a stream by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from parrot_compat.core.errors import Cancelled, EngineError
from parrot_compat.server.sse import Frame, SseResponse, event, kept_alive, merge, while_connected


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


@pytest.mark.parametrize("count", [1, 3])
async def test_a_merge_of_any_number_ends_with_a_failure_behind_what_came_before(count: int) -> None:
    sources = [Source(b"x", error=EngineError("no")), *(Source(is_endless=True) for _ in range(count - 1))]
    seen = []
    with pytest.raises(EngineError, match="no"):
        async for item in merge([source.events() for source in sources]):
            seen.append(item)
    assert seen == [(0, b"x")] and all(source.is_closed for source in sources)


class Line:
    """What was said, and news when it is so much."""

    def __init__(self, most: int = 0) -> None:
        self.said: list[bytes] = []
        self.is_full = asyncio.Event()
        self._most = most

    async def say(self, data: bytes) -> None:
        self.said.append(data)
        if len(self.said) == self._most:
            self.is_full.set()


async def test_keep_alive_adds_nothing_where_something_is_said() -> None:
    line = Line()
    async with kept_alive(line.say, 5) as speak:
        await speak(b"a")
        await speak(b"b")
    assert line.said == [b"a", b"b"]


async def test_keep_alive_says_comments_in_silence_and_none_behind_its_end() -> None:
    line, others, told = Line(3), asyncio.all_tasks(), 0
    with pytest.raises(EngineError, match="no"):
        async with kept_alive(line.say, 0.001) as speak:
            (keeper,) = asyncio.all_tasks() - others  # nobody else has had a turn yet
            await speak(b"a")
            await line.is_full.wait()
            told = len(line.said)  # more than were waited for, where this task was late
            raise EngineError("no")
    first, *comments = line.said
    assert first == b"a" and len(line.said) == told and len(comments) >= 2
    assert all(comment.startswith(b":") and comment.endswith(b"\n\n") for comment in comments)
    assert keeper.done()


@given(text=st.text(st.characters(exclude_categories=[])), model=st.text())
def test_a_frame_is_the_event_that_it_stands_for(text: str, model: str) -> None:
    def of(text: str) -> dict[str, object]:
        return {"model": model, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}

    assert Frame(of).event(text) == event(of(text))


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


@pytest.mark.parametrize("items", [(), (b"data: x\n\n",)])
async def test_a_stream_whose_client_reads_nothing_ends_though_its_source_is_silent(
    monkeypatch: pytest.MonkeyPatch, items: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(SseResponse, "longest_pause_s", 0.05)
    source, sent = Source(*items, is_endless=True), 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += 1
        if sent == 2 + len(items):  # the buffers are full
            await asyncio.Event().wait()

    response = SseResponse(source.events(), owner=AsyncExitStack(), keep_alive_s=0.05)
    async with asyncio.timeout(30):
        await response({"type": "http", "state": {}}, silent, send)
    assert source.is_closed or not items, "a source that never began has nothing to close"
    assert sent == 2 + len(items)
