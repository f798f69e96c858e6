"""POST /v1/chat/completions: one conversation in, `n` answers out, whole or as they come.

It knows nothing of how calls are run. Whatever is wrong with the request is said before the first byte.

The invariant: the chunks of a stream, put together, are the answer that the same request gets unstreamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.core.engine import Chunk
from parrot_compat.core.result import TaskResult
from parrot_compat.core.task import Task
from parrot_compat.server.bodies import Raw, read_raw
from parrot_compat.server.hints import Hints
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sse import SseResponse, while_connected

from .answering import AnswerHead, usage_of
from .chat_schema import ChatRequest
from .conversing import Conversation, converse
from .logprobs import ChatLogprobs, TokenWriter, Writes
from .streaming import ChoiceStream, first_word
from .tools import wire_call, wire_piece

__all__ = ["completion", "results_of", "router", "writer_of"]


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions", summary="Answer a conversation", tags=["OpenAI"])
    async def create_chat_completion(request: Request) -> Response:
        raw = Raw(await read_raw(request, serving.limits))
        return await serving.repeats.once(request, tenant_of(request), raw, lambda: answered(request, raw))

    async def answered(request: Request, raw: Raw) -> Response:
        body, hints = raw.parse(ChatRequest), Hints()
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        async with AsyncExitStack() as stack:
            chat = await converse(serving, body, request.headers, tenant_of(request), hints, kind, stack)
            begun, writer = chat.begun, writer_of(serving, chat.begun.tasks[0]) if body.logprobs else None
            if body.stream:
                await first_word(serving, request, chat.model, begun.tasks)
                events = _stream(chat, body, writer)
                headers = begun.headers()
                return SseResponse(events, owner=stack.pop_all(), keep_alive_s=serving.keep_alive_s, headers=headers)
            del body  # a call may wait for days; what else was said with its prompt is of no use any more
            results = await while_connected(request.receive, results_of(begun.tasks))
            usages = [result.usage for result in results]
            data = completion(chat.answer, results, chat.known_ids(), chat.tells_ids, writer)
            return send_json(data | begun.object(usages), begun.headers(usages))

    return routes


def writer_of(serving: Serving, task: Task) -> TokenWriter:
    """Errors: `NoEngineForModel`."""
    return TokenWriter(serving.manager.tokenizer(task.model), task.call.sampling.format)


async def results_of(tasks: Sequence[Task]) -> list[TaskResult]:
    return await asyncio.gather(*(task.finished() for task in tasks))


def completion(
    answer: AnswerHead,
    results: Sequence[TaskResult],
    ids: Sequence[int] | None = None,
    tells_ids: bool = False,
    writer: Writes | None = None,
) -> dict[str, Any]:
    """The answer, whole, to the prompt of these `ids`, if they are known. All token ids are in it if it `tells_ids`,
    with `writer` the log probabilities."""
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": _message(result),
            "finish_reason": result.finish.value,
            "logprobs": None if writer is None else ChatLogprobs(writer, ids).told(result.logprobs),
        }
        for index, result in enumerate(results)
    ]
    data = answer.head() | {"choices": choices}
    if tells_ids and ids is not None:
        data["prompt_token_ids"] = list(ids)
        for choice, result in zip(choices, results, strict=True):
            choice["token_ids"] = list(result.tokens)
    return data | {"usage": usage_of([result.usage for result in results], len(results))}


def _message(result: TaskResult) -> dict[str, Any]:
    content = result.text if result.text or not (result.calls or result.refusal) else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": result.refusal or None}
    if result.reasoning:
        message["reasoning_content"] = result.reasoning
    if result.calls:
        message["tool_calls"] = [wire_call(call) for call in result.calls]
    return message


def _stream(chat: Conversation, body: ChatRequest, writer: Writes | None) -> AsyncGenerator[bytes, None]:
    """Each choice says its role, its text as it comes, and why it ended. The ids of a prompt that had holes are on the
    last chunk."""
    stream = ChoiceStream(chat.answer, chat.begun, body, "delta", lambda text: {"content": text})
    known = chat.prompt_ids()
    ids = None if known is None else {"prompt_token_ids": known}
    tells_drawn = bool(body.return_token_ids)  # the body itself is not kept
    says_more = writer is not None or tells_drawn
    logprobs: dict[int, ChatLogprobs] = {}

    def opening() -> Iterator[bytes]:
        for index in range(stream.count):
            of_all = ids if ids is not None and index == 0 else {}
            yield stream.chunk(index, {"role": "assistant", "content": "", "refusal": None}, of_all=of_all)

    def told(index: int, piece: Chunk) -> Iterator[bytes]:
        if not says_more and _is_plain(piece):
            yield stream.text(index, piece.text)
            return
        drawn: dict[str, Any] = {"token_ids": list(piece.tokens)} if tells_drawn else {}
        if writer is not None:
            if index not in logprobs:  # the prompt is whole by now
                logprobs[index] = ChatLogprobs(writer, chat.known_ids())
            drawn["logprobs"] = logprobs[index].told(piece.logprobs)
        delta = _delta(piece)
        if delta or (drawn and (piece.tokens or piece.logprobs)):
            yield stream.chunk(index, delta, **drawn)
        if piece.finish is not None:
            late = chat.prompt_ids() if stream.is_over and ids is None else None
            of_all = {} if late is None else {"prompt_token_ids": late}
            yield stream.chunk(index, {}, piece.finish.value, of_all | stream.receipt())

    return stream.events(opening(), told)


def _is_plain(piece: Chunk) -> bool:
    """It adds text, and nothing else that a client is told without asking."""
    return bool(piece.text) and piece.finish is None and not (piece.reasoning or piece.refusal or piece.calls)


def _delta(piece: Chunk) -> dict[str, Any]:
    """What a stretch of output adds to the message."""
    delta: dict[str, Any] = {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.text:
        delta["content"] = piece.text
    if piece.refusal:
        delta["refusal"] = piece.refusal
    if piece.calls:
        delta["tool_calls"] = [wire_piece(call) for call in piece.calls]
    return delta
