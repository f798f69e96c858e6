"""Server-sent events, and the watch over the client's end of a connection.

It knows nothing of OpenAI or of calls. Work that a client has left is cancelled: its iterator is closed and
its `finally` blocks have run before the request ends.

The invariant: nothing that answers a client outlives that client's connection, and a stream whose client is still
there ends with what is its end, or with an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar, cast

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from parrot_compat.core.errors import Cancelled

from .errors import SHUTTING_DOWN, Problem, problem_of

__all__ = ["DONE", "Frame", "SseResponse", "event", "kept_alive", "merge", "while_connected"]

log = logging.getLogger(__name__)
T = TypeVar("T")
Say = Callable[[bytes], Awaitable[None]]

DONE = b"data: [DONE]\n\n"
_HOLE = "\0the text"
_KEEP_ALIVE = b": still here\n\n"  # a comment: clients skip it, proxies see that the line is alive


def event(data: Mapping[str, Any]) -> bytes:
    # in ASCII: some clients split lines at U+2028 and its like, which JSON need not escape
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class Frame:
    """An event that is sent again and again with another text in it: all else of it is written once."""

    def __init__(self, of: Callable[[str], Mapping[str, Any]]) -> None:
        """`of` gives the event's data with a text in it."""
        self._before, _, self._after = event(of(_HOLE)).rpartition(json.dumps(_HOLE).encode())

    def event(self, text: str) -> bytes:
        return self._before + json.dumps(text).encode() + self._after


def _told(problem: Problem) -> bytes:
    return event(problem.envelope())


class _Unread(Cancelled):
    """What is sent is not read."""


class SseResponse(Response):
    """Sends `events` as they come, a comment in long silences, an error as one last event, in the words of `tell`.

    `owner` is what the events are made from (a session with calls in it); it is closed when the stream has
    ended, whichever way, even if it never began. Who sets `when_over` is told all that was sent, then; `None` where
    that was not all, or a failure, or more than `most_told` bytes.
    """

    media_type = "text/event-stream"
    longest_pause_s = 60.0
    """So long a client may read nothing while there is something for it. What it holds is then given back."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        owner: AsyncExitStack,
        keep_alive_s: float = 15.0,
        headers: Mapping[str, str] | None = None,
        tell: Callable[[Problem], bytes] = _told,
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]  # an empty Response promises 0 bytes; a stream promises nothing
        self._events = events
        self._owner = owner
        self._keep_alive_s = keep_alive_s
        self._tell = tell
        self._is_open = False
        """The status line is out, and the end is not."""
        self.when_over: Callable[[bytes | None], None] | None = None
        self.most_told: float = math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        soon = _soon(send, self.longest_pause_s)
        async with self._owner:
            try:
                with suppress(Cancelled):  # the client has left: there is nobody to tell
                    await while_connected(receive, self._send_all(scope, send, soon))
            except asyncio.CancelledError:
                if not self._is_open:
                    raise
                await soon(_body(self._tell(SHUTTING_DOWN)))
                await soon(_END)
            finally:
                self._over(None)

    async def _send_all(self, scope: Scope, send: Send, soon: Send) -> None:
        """`send` is for events, of which there are many: their keeper sees how long one takes."""
        sent: list[bytes] = []
        size, is_whole = 0, True
        await soon({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._is_open = True
        try:
            async with (
                aclosing(self._events) as events,
                kept_alive(lambda data: send(_body(data)), self._keep_alive_s, self.longest_pause_s) as say,
            ):
                async for data in events:
                    await say(data)
                    if self.when_over is not None and is_whole:
                        sent.append(data)
                        size += len(data)
                        if size > self.most_told:
                            is_whole = False
                            sent.clear()
        except _Unread:
            raise
        except Exception as error:  # the status line is out, so the failure becomes the last event
            is_whole = False
            problem = problem_of(error)
            request_id = scope.get("state", {}).get("request_id", "none")
            if problem.status == 500:
                log.exception("a stream failed inside (request %s)", request_id)
            elif problem.status > 500:
                log.warning("a stream failed (request %s): %s: %s", request_id, type(error).__name__, error)
            await soon(_body(self._tell(problem)))
        self._over(b"".join(sent) if is_whole else None)  # before a client can know that this was all
        await soon(_END)
        self._is_open = False

    def _over(self, sent: bytes | None) -> None:
        when_over, self.when_over = self.when_over, None
        if when_over is not None:
            when_over(sent)


def _soon(send: Send, within_s: float) -> Send:
    """`send`, for a client that reads. Errors: `_Unread` for one that does not: it is as good as gone."""

    async def sent(message: Message) -> None:
        try:
            async with asyncio.timeout(within_s):
                await send(message)
        except TimeoutError:
            raise _Unread(f"the client has read nothing for {within_s:g} s") from None

    return sent


_END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


def _body(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


@asynccontextmanager
async def kept_alive(say: Say, silence_s: float, pause_s: float = math.inf) -> AsyncGenerator[Say, None]:
    """`say`, and a comment said wherever `silence_s` seconds have brought nothing. Errors: `_Unread` where one saying
    takes `pause_s`, whatever the block waits for then."""
    now_s = asyncio.get_running_loop().time
    spoke_s = now_s()
    is_speaking = False
    unread: list[_Unread] = []
    speaker = asyncio.current_task()
    assert speaker is not None

    async def speak(data: bytes) -> None:
        nonlocal spoke_s, is_speaking
        spoke_s, is_speaking = now_s(), True
        await say(data)
        is_speaking = False

    async def keep() -> None:
        """Sleeps for each silence: a timer for each event would cost more than the event."""
        while True:
            left_s = spoke_s + (pause_s if is_speaking else silence_s) - now_s()
            if left_s > 0:
                await asyncio.sleep(min(left_s, silence_s))
            elif is_speaking:
                raise _Unread(f"the client has read nothing for {pause_s:g} s")
            else:
                async with asyncio.timeout(None if pause_s == math.inf else pause_s):
                    await speak(_KEEP_ALIVE)

    def ended(keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and isinstance(error := keeper.exception(), _Unread | TimeoutError):
            unread.append(_Unread(str(error) or f"the client has read nothing for {pause_s:g} s"))
            speaker.cancel()  # it may wait for an event that is far off

    keeper = asyncio.create_task(keep())
    keeper.add_done_callback(ended)
    try:
        yield speak
    except asyncio.CancelledError:
        if not unread:
            raise
        speaker.uncancel()
        raise unread[0] from None
    finally:
        keeper.remove_done_callback(ended)
        await _stop(keeper)


async def merge(sources: list[AsyncIterator[T]]) -> AsyncGenerator[tuple[int, T], None]:
    """What any source brings, as it comes, with the source's number. The first failure ends all of it."""
    if len(sources) == 1:  # nearly always: no queue and no task between
        async with aclosing(cast("AsyncGenerator[T, None]", sources[0])) as only:
            async for one in only:
                yield 0, one
        return
    queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(maxsize=2 * len(sources))

    async def follow(number: int, source: AsyncIterator[T]) -> None:
        try:
            async for item in source:
                await queue.put((number, item))
            await queue.put(None)
        except Exception as error:  # its owner is whoever reads the merged stream
            await queue.put(error)

    followers = [asyncio.create_task(follow(number, source)) for number, source in enumerate(sources)]
    try:
        left = len(sources)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for follower in followers:
            await _stop(follower)


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`. If the client leaves first, `work` is cancelled, and `Cancelled` raised once it is over."""
    worker = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        raise Cancelled("the client closed the connection")
    finally:
        await _stop(watcher)
        await _stop(worker)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop(task: asyncio.Future[Any]) -> None:
    """Cancel, and wait until it has let go of what it held. Its own outcome has been taken, or is of no interest."""
    if task.done():
        if not task.cancelled():
            task.exception()  # marks it as retrieved
        return
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
