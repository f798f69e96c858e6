"""One chat call, planned or not: whole or as it comes, in a thread or in an event loop.

It knows requests as the SDK takes them and what is `Asked` with them. Without a match it is the SDK's own call.
With one, a whole answer is its push; a streamed one is claimed, live, and finished by the push if that is first.

The invariant: what comes back is what the same request brings without a plan. A claim is an ordinary request
with a hint, so every failure of a plan ends in an ordinary request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import aclosing, suppress
from typing import Any, cast

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from parrot_compat.integrations import remote
from parrot_compat.integrations.remote import Endpoint
from parrot_compat.integrations.requests import TRANSPORT

from .asked import ALONE, Asked
from .client import Match
from .ledger import Outcome
from .replay import completion_of
from .streams import astreamed, streamed

__all__ = ["acomplete", "astream", "body_of", "complete", "stream"]

STREAM_ONLY = ("stream", "stream_options")


def body_of(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The body that `create(**request)` sends, without what only streams have. `None` if more than a body decides
    the call (its own headers, a limit of time), or if it has a `parrot` object of the app's own."""
    if any(name in request for name in TRANSPORT):
        return None
    extra = request.get("extra_body") or {}
    body = {**{name: value for name, value in request.items() if name != "extra_body"}, **extra}
    if "parrot" in body:
        return None
    return {name: value for name, value in body.items() if name not in STREAM_ONLY and value is not openai.omit}


def complete(endpoint: Endpoint, request: Mapping[str, Any], asked: Asked = ALONE) -> ChatCompletion:
    outcome: Outcome | None = None
    if asked.match is not None:
        with suppress(FutureTimeout):
            outcome = asked.match.outcome.result(endpoint.timeout_s)
        if (pushed := _pushed(asked.match, outcome)) is not None:
            return pushed
    with asked.sending(endpoint, request) as sent:
        answer = remote.client(endpoint).chat.completions.create(**sent)
    return asked.answered(request, cast("ChatCompletion", answer))


async def acomplete(endpoint: Endpoint, request: Mapping[str, Any], asked: Asked = ALONE) -> ChatCompletion:
    client = await remote.async_client(endpoint)
    outcome: Outcome | None = None
    if asked.match is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(endpoint.timeout_s):
                outcome = await asyncio.wrap_future(asked.match.outcome)
        if (pushed := _pushed(asked.match, outcome)) is not None:
            return pushed
    with asked.sending(endpoint, request) as sent:
        answer = await client.chat.completions.create(**sent)
    return asked.answered(request, cast("ChatCompletion", answer))


def _pushed(match: Match, outcome: Outcome | None) -> ChatCompletion | None:
    if outcome is None or outcome.completion is None:
        return None
    match.answered("pushed")
    return completion_of(outcome.completion)


def stream(
    endpoint: Endpoint, request: Mapping[str, Any], asked: Asked = ALONE
) -> Generator[ChatCompletionChunk, None, None]:
    """Leaving it closes the connection, and the server stops the work."""
    if asked.match is not None:
        yield from streamed(endpoint, request, asked, asked.match)
        return
    with asked.sending(endpoint, request) as sent:
        opened = remote.client(endpoint).chat.completions.create(**sent)
        with cast("openai.Stream[ChatCompletionChunk]", opened) as chunks:
            for chunk in chunks:
                yield asked.plain(request, chunk)


async def astream(
    endpoint: Endpoint, request: Mapping[str, Any], asked: Asked = ALONE
) -> AsyncGenerator[ChatCompletionChunk, None]:
    if asked.match is not None:
        async with aclosing(astreamed(endpoint, request, asked, asked.match)) as planned:
            async for chunk in planned:
                yield chunk
        return
    client = await remote.async_client(endpoint)
    with asked.sending(endpoint, request) as sent:
        opened = await client.chat.completions.create(**sent)
        async with cast("openai.AsyncStream[ChatCompletionChunk]", opened) as chunks:
            async for chunk in chunks:
                yield asked.plain(request, chunk)
