"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API over the calls that answer a chat.

It knows nothing of how calls are run, nor of what a request says: `translation` makes a chat of it, `answers` says what
comes. Whatever is wrong with the request is said before the first byte.

The invariant: a request is answered by the same calls as the chat that it is translated to.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.server.bodies import Raw, read_body, read_raw
from parrot_compat.server.errors import ApiError, Problem
from parrot_compat.server.hints import Hints
from parrot_compat.server.openai.chat import results_of
from parrot_compat.server.openai.conversing import Conversation, converse
from parrot_compat.server.openai.requests import read_chat
from parrot_compat.server.openai.streaming import first_word
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sse import SseResponse, event, while_connected

from .answers import events_of, message_of
from .messages_schema import CountTokensRequest, MessagesRequest
from .problems import envelope_of
from .translation import CLIENT_NAMES, translated, untranslated

__all__ = ["router"]


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/messages", summary="Answer a conversation", tags=["Anthropic"])
    async def create_message(request: Request) -> Response:
        raw = Raw(await read_raw(request, serving.limits))
        return await serving.repeats.once(request, tenant_of(request), raw, lambda: answered(request, raw))

    async def answered(request: Request, raw: Raw) -> Response:
        asked, hints = raw.parse(MessagesRequest), Hints()
        async with AsyncExitStack() as stack:
            try:
                body = translated(asked, hints)
                chat = await converse(serving, body, request.headers, tenant_of(request), hints, "message", stack)
            except ApiError as error:
                raise untranslated(error) from None
            hints.rename(CLIENT_NAMES)
            begun = chat.begun
            if asked.stream:
                await first_word(serving, request, chat.model, begun.tasks)
                return SseResponse(
                    _stream(chat),
                    owner=stack.pop_all(),
                    keep_alive_s=serving.keep_alive_s,
                    headers=begun.headers(),
                    tell=_problem,
                )
            del asked, body  # a call may wait for long; what else was said with its prompt is of no use any more
            results = await while_connected(request.receive, results_of(begun.tasks))
            data = await message_of(_id(chat), chat.answer.model, begun.tasks[0].chunks())
            return send_json(data, begun.headers([result.usage for result in results]))

    @routes.post("/v1/messages/count_tokens", summary="Count the tokens of a conversation", tags=["Anthropic"])
    async def count_tokens(request: Request) -> Response:
        asked, hints = await read_body(request, CountTokensRequest, serving.limits), Hints()
        try:
            body = translated(asked, hints)
            chat = read_chat(serving, body, hints, tenant=tenant_of(request))
            tokens = await while_connected(request.receive, chat.count())
        except ApiError as error:
            raise untranslated(error) from None
        hints.rename(CLIENT_NAMES)
        return send_json({"input_tokens": tokens}, hints.headers())

    return routes


async def _stream(chat: Conversation) -> AsyncGenerator[bytes, None]:
    async with aclosing(events_of(_id(chat), chat.answer.model, chat.begun.tasks[0].chunks())) as events:
        async for one in events:
            yield _named(one)


def _id(chat: Conversation) -> str:
    return chat.answer.id.replace("chatcmpl-", "msg_")


def _problem(problem: Problem) -> bytes:
    return _named(envelope_of(problem))


def _named(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\n".encode() + event(data)
