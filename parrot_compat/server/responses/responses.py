"""POST /v1/responses: OpenAI's Responses API over the calls that answer a chat. Nothing of an answer is kept.

It knows nothing of how calls are run, nor of what a request says: `translation` makes a chat of it, `answers` says what
comes. Whatever is wrong with the request is said before the first byte.

The invariant: a request is answered by the same calls as the chat that it is translated to.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.core.call import Logprobs
from parrot_compat.server.bodies import Raw, read_raw
from parrot_compat.server.errors import Problem
from parrot_compat.server.hints import Hints
from parrot_compat.server.openai.chat import results_of, writer_of
from parrot_compat.server.openai.conversing import Conversation, converse
from parrot_compat.server.openai.logprobs import ChatLogprobs
from parrot_compat.server.openai.streaming import first_word
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sse import SseResponse, event, while_connected

from .answers import Telling
from .entries import Entry
from .responses_schema import ResponsesRequest
from .translation import CLIENT_NAMES, Names, translated

__all__ = ["router"]


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/responses", summary="Answer a conversation, as items", tags=["OpenAI"])
    async def create_response(request: Request) -> Response:
        raw = Raw(await read_raw(request, serving.limits))
        return await serving.repeats.once(request, tenant_of(request), raw, lambda: answered(request, raw))

    async def answered(request: Request, raw: Raw) -> Response:
        asked, hints = raw.parse(ResponsesRequest), Hints()
        body, names = translated(asked, hints)
        async with AsyncExitStack() as stack:
            with names.used():
                chat = await converse(serving, body, request.headers, tenant_of(request), hints, "response", stack)
            hints.rename(CLIENT_NAMES)
            begun, telling = chat.begun, _telling(serving, chat, asked)
            if asked.stream:
                with names.used():
                    await first_word(serving, request, chat.model, begun.tasks)
                return SseResponse(
                    _stream(chat, telling),
                    owner=stack.pop_all(),
                    keep_alive_s=serving.keep_alive_s,
                    headers=begun.headers(),
                    tell=_failing(telling, names),
                )
            del asked, body  # a call may wait for long; what else was said with its prompt is of no use any more
            with names.used():
                results = await while_connected(request.receive, results_of(begun.tasks))
            data = await telling.whole(begun.tasks[0].chunks())
            return send_json(data, begun.headers([result.usage for result in results]))

    return routes


def _telling(serving: Serving, chat: Conversation, asked: ResponsesRequest) -> Telling:
    answer = chat.answer
    head = {
        "id": answer.id.replace("chatcmpl-", "resp_"),
        "object": "response",
        "created_at": answer.created,
        "completed_at": None,
        "model": answer.model,
        "service_tier": answer.tier,
    }
    return Telling(
        head | asked.repeated(),
        receipt=lambda usage: chat.begun.object([usage]),
        entries=_entries(serving, chat) if asked.wants_logprobs else None,
    )


def _entries(serving: Serving, chat: Conversation) -> Callable[[Sequence[Logprobs]], list[Entry]]:
    told: list[ChatLogprobs] = []

    def entries(drawn: Sequence[Logprobs]) -> list[Entry]:
        if not told:  # the prompt is whole by now
            told.append(ChatLogprobs(writer_of(serving, chat.begun.tasks[0]), chat.known_ids()))
        content: list[Entry] = told[0].told(drawn)["content"]
        return content

    return entries


async def _stream(chat: Conversation, telling: Telling) -> AsyncGenerator[bytes, None]:
    async with aclosing(telling.events(chat.begun.tasks[0].chunks())) as events:
        async for one in events:
            yield _named(one)


def _failing(telling: Telling, names: Names) -> Callable[[Problem], bytes]:
    def tell(problem: Problem) -> bytes:
        return b"".join(map(_named, telling.failed(names.of(problem))))

    return tell


def _named(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\n".encode() + event(data)
