"""A planned call as a stream: its claim, live, and its push, whichever gets there first.

A claim streams what is there and then what comes, but it costs a round trip; the push needs none, but it comes
only when all is there. So both are awaited: chunks are passed on as the claim brings them, and the moment the
push is here the rest is taken from it and the claim's connection let go.

It knows requests as the SDK takes them. The invariant: the text that comes out is the text of one answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, cast

import openai
from openai.types.chat import ChatCompletionChunk

from parrot_compat.integrations import remote
from parrot_compat.integrations.remote import Endpoint

from .asked import Asked
from .client import Match
from .replay import Heard, chunks_of

__all__ = ["astreamed", "streamed"]


class _Signal:
    """What is said between the one who asks and the one who reads, besides chunks and failures."""

    def __init__(self, name: str) -> None:
        self.name = name


PUSHED = _Signal("the push is here")
ENDED = _Signal("the claim's stream has ended")


class _Merged:
    """What becomes of one streamed call: the chunks so far, and how it ends."""

    def __init__(self, request: Mapping[str, Any], asked: Asked, match: Match) -> None:
        options = (request.get("extra_body") or {}).get("stream_options") or request.get("stream_options") or {}
        self._usage = bool(options.get("include_usage"))
        self._asked = asked
        self._match = match
        self._request = request
        self._heard = Heard()

    def rest(self) -> list[ChatCompletionChunk] | None:
        """What is left to say now that the push is here; `None` if the claim's stream must be followed to its end."""
        completion = self._match.pushed()
        if completion is None or not self._heard.can_end_as(completion):
            return None
        self._match.answered("pushed")
        return list(chunks_of(completion, usage=self._usage, heard=self._heard))

    def heard(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        self._heard.hear(chunk)
        return self._asked.plain(self._request, chunk)

    def end(self) -> None:
        self._asked.settle(self._heard.claimed, self._heard.text)


def streamed(
    endpoint: Endpoint, request: Mapping[str, Any], asked: Asked, match: Match
) -> Generator[ChatCompletionChunk, None, None]:
    merged = _Merged(request, asked, match)
    if (rest := merged.rest()) is not None:
        yield from rest
        return
    inbox: SimpleQueue[ChatCompletionChunk | BaseException | _Signal] = SimpleQueue()
    left = threading.Event()

    def claim() -> None:
        try:
            if _pushed_first(match, endpoint.timeout_s):
                return
            with match.plan.claiming(), asked.sending(endpoint, request) as sent:
                if left.is_set():  # looked at when the plan's end waits for this claim, not before
                    return
                opened = remote.client(endpoint).chat.completions.create(**sent)
                with cast("openai.Stream[ChatCompletionChunk]", opened) as chunks:
                    for chunk in chunks:
                        inbox.put(chunk)
                        if left.is_set():
                            return
            inbox.put(ENDED)
        except BaseException as error:  # raised again in the thread that asked
            inbox.put(error)

    match.outcome.add_done_callback(lambda _: inbox.put(PUSHED))
    threading.Thread(target=claim, name="parrot-claim", daemon=True).start()
    try:
        while (item := inbox.get()) is not ENDED:
            if item is PUSHED:
                if (rest := merged.rest()) is not None:
                    yield from rest
                    return
            elif isinstance(item, BaseException):
                raise item
            else:
                yield merged.heard(cast("ChatCompletionChunk", item))
        merged.end()
    finally:
        left.set()


def _pushed_first(match: Match, patience_s: float | None) -> bool:
    """Wait until there is a plan to claim from. Where the server is likely to be ahead, wait one round trip more:
    a push that is on its way makes the claim needless."""
    with suppress(TimeoutError):
        match.graph.result(patience_s)
    if match.is_read and (round_trip := match.plan.round_trip_s) is not None:
        with suppress(TimeoutError):
            match.outcome.result(round_trip)
    return match.pushed() is not None


async def astreamed(
    endpoint: Endpoint, request: Mapping[str, Any], asked: Asked, match: Match
) -> AsyncGenerator[ChatCompletionChunk, None]:
    merged = _Merged(request, asked, match)
    if (rest := merged.rest()) is not None:
        for chunk in rest:
            yield chunk
        return
    inbox: asyncio.Queue[ChatCompletionChunk | BaseException | _Signal] = asyncio.Queue()

    async def claim() -> None:
        try:
            if await _apushed_first(match, endpoint.timeout_s):
                return
            client = await remote.async_client(endpoint)
            with match.plan.claiming(), asked.sending(endpoint, request) as sent:
                opened = await client.chat.completions.create(**sent)
                async with cast("openai.AsyncStream[ChatCompletionChunk]", opened) as chunks:
                    async for chunk in chunks:
                        inbox.put_nowait(chunk)
            inbox.put_nowait(ENDED)
        except Exception as error:  # raised again in the task that asked
            inbox.put_nowait(error)

    push = asyncio.wrap_future(match.outcome)
    push.add_done_callback(lambda _: inbox.put_nowait(PUSHED))
    claimant = asyncio.create_task(claim())
    try:
        while (item := await inbox.get()) is not ENDED:
            if item is PUSHED:
                if (rest := merged.rest()) is not None:
                    for chunk in rest:
                        yield chunk
                    return
            elif isinstance(item, BaseException):
                raise item
            else:
                yield merged.heard(cast("ChatCompletionChunk", item))
        merged.end()
    finally:
        push.cancel()
        claimant.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await claimant


async def _apushed_first(match: Match, patience_s: float | None) -> bool:
    await _wait(match.graph, patience_s)
    if match.is_read and (round_trip := match.plan.round_trip_s) is not None:
        await _wait(match.outcome, round_trip)
    return match.pushed() is not None


async def _wait(future: Future[Any], seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.wrap_future(future)
