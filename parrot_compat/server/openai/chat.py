"""POST /v1/chat/completions: one conversation in, `n` answers out, whole or as they come.

It knows nothing of how calls are run. Whatever is wrong with the request is said before the first byte.

The invariant: the chunks of a stream, put together, are the answer that the same request gets unstreamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.core.call import Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.result import TaskResult
from parrot_compat.core.task import Task
from parrot_compat.server.bodies import parse, read_raw
from parrot_compat.server.hints import Hints
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sse import DONE, Frame, SseResponse, event, merge, while_connected

from .answering import AnswerHead, usage_of
from .chat_schema import ChatRequest
from .conversing import Conversation, converse
from .logprobs import TokenWriter, Writes, chat_logprobs
from .tools import wire_call, wire_piece

__all__ = ["completion", "results_of", "router"]


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions", summary="Answer a conversation", tags=["OpenAI"])
    async def create_chat_completion(request: Request) -> Response:
        raw = await read_raw(request, serving.limits)
        return await serving.repeats.once(request, tenant_of(request), raw, lambda: answered(request, raw))

    async def answered(request: Request, raw: bytes) -> Response:
        body, hints = parse(raw, ChatRequest), Hints()
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        async with AsyncExitStack() as stack:
            chat = await converse(serving, body, request.headers, tenant_of(request), hints, kind, stack)
            begun, writer = chat.begun, TokenWriter(serving.manager.tokenizer(chat.model)) if body.logprobs else None
            if body.stream:
                events = _stream(chat, body, writer)
                headers = begun.headers()
                return SseResponse(events, owner=stack.pop_all(), keep_alive_s=serving.keep_alive_s, headers=headers)
            results = await while_connected(request.receive, results_of(begun.tasks))
            usages = [result.usage for result in results]
            ids = chat.prompt_ids or _rendered_ids(begun.tasks[0], body)
            data = completion(chat.answer, results, ids, writer)
            return send_json(data | begun.object(usages), begun.headers(usages))

    return routes


def _rendered_ids(task: Task, body: ChatRequest) -> list[int] | None:
    ids = task.rendered.ids if body.return_token_ids and task.rendered is not None else None
    return None if ids is None else list(ids)


async def results_of(tasks: Sequence[Task]) -> list[TaskResult]:
    return await asyncio.gather(*(task.finished() for task in tasks))


def completion(
    answer: AnswerHead,
    results: Sequence[TaskResult],
    prompt_ids: list[int] | None = None,
    writer: Writes | None = None,
) -> dict[str, Any]:
    """The answer, whole. With `prompt_ids` all token ids are in it, with `writer` the log probabilities."""
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": _message(result),
            "finish_reason": result.finish.value,
            "logprobs": None if writer is None else chat_logprobs(writer, result.logprobs),
        }
        for index, result in enumerate(results)
    ]
    data = answer.head() | {"choices": choices}
    if prompt_ids is not None:
        data["prompt_token_ids"] = prompt_ids
        for choice, result in zip(choices, results, strict=True):
            choice["token_ids"] = list(result.tokens)
    return data | {"usage": usage_of([result.usage for result in results], len(results))}


def _message(result: TaskResult) -> dict[str, Any]:
    content = result.text if result.text or not result.calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if result.reasoning:
        message["reasoning_content"] = result.reasoning
    if result.calls:
        message["tool_calls"] = [wire_call(call) for call in result.calls]
    return message


async def _stream(chat: Conversation, body: ChatRequest, writer: Writes | None) -> AsyncGenerator[bytes, None]:
    """Each choice says its role, its text as it comes, and why it ended; then the usage, if asked for. What is said of
    the whole (the receipt, the ids of a prompt that had holes) is on the last chunk."""
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    head = chat.answer.head() | ({"usage": None} if with_usage else {})
    begun, tasks, prompt_ids = chat.begun, chat.begun.tasks, chat.prompt_ids

    def data(of_all: dict[str, Any], index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return head | of_all | {"choices": [choice]}

    def chunk(of_all: dict[str, Any], index: int, delta: dict[str, Any], **more: Any) -> bytes:
        return event(data(of_all, index, delta, **more))

    @cache
    def frame(index: int) -> Frame:
        return Frame(lambda text: data({}, index, {"content": text}))

    ids: dict[str, Any] = {} if prompt_ids is None else {"prompt_token_ids": prompt_ids}
    for index in range(len(tasks)):
        yield chunk({} if index else ids, index, {"role": "assistant", "content": "", "refusal": None})
    says_more = writer is not None or body.return_token_ids
    usages: dict[int, Usage] = {}
    async for index, piece in merge([task.chunks() for task in tasks]):
        if not says_more and _is_plain(piece):
            yield frame(index).event(piece.text)
            continue
        drawn: dict[str, Any] = {"token_ids": list(piece.tokens)} if body.return_token_ids else {}
        if writer is not None:
            drawn["logprobs"] = chat_logprobs(writer, piece.logprobs)
        delta = _delta(piece)
        if delta or (drawn and (piece.tokens or piece.logprobs)):
            yield chunk({}, index, delta, **drawn)
        if piece.finish is not None:
            usages[index] = piece.usage or Usage()
            last: dict[str, Any] = {}
            if len(usages) == len(tasks):
                late = _rendered_ids(tasks[0], body) if prompt_ids is None else None
                last = {} if late is None else {"prompt_token_ids": late}
                last |= {} if with_usage else begun.object([usages[index] for index in range(len(tasks))])
            yield chunk(last, index, {}, finish_reason=piece.finish.value)
    if with_usage:
        used = [usages[index] for index in range(len(tasks))]
        yield event(head | {"choices": [], "usage": usage_of(used, len(tasks))} | begun.object(used))
    yield DONE


def _is_plain(piece: Chunk) -> bool:
    """It adds text, and nothing else that a client is told without asking."""
    return bool(piece.text) and piece.finish is None and not (piece.reasoning or piece.calls)


def _delta(piece: Chunk) -> dict[str, Any]:
    """What a stretch of output adds to the message."""
    delta: dict[str, Any] = {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.text:
        delta["content"] = piece.text
    if piece.calls:
        delta["tool_calls"] = [wire_piece(call) for call in piece.calls]
    return delta
