"""POST /v1/chat/completions: one conversation in, `n` answers out, whole or as they come.

It knows nothing of how calls are run. Whatever is wrong with the request is said before the first byte.

The invariant: the chunks of a stream, put together, are the answer that the same request gets unstreamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.core.call import Reading, Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.errors import BadSchema
from parrot_compat.core.prompt import ChatPrompt
from parrot_compat.core.result import TaskResult
from parrot_compat.core.task import Task
from parrot_compat.core.tokenizer import Tokenizer
from parrot_compat.server.errors import invalid
from parrot_compat.server.hints import Hints
from parrot_compat.server.limits import parse, read_raw
from parrot_compat.server.parrot.asking import read_ask
from parrot_compat.server.parrot.rooms import Begun, entered
from parrot_compat.server.sse import DONE, EventStream, event, merge, while_connected

from .chat_schema import ChatRequest, chat_prompt, message_texts
from .logprobs import chat_logprobs
from .serving import Answer, Serving, send_json, tenant_of, usage_of
from .tools import wire_call

__all__ = ["completion", "router"]


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions", summary="Answer a conversation", tags=["OpenAI"])
    async def create_chat_completion(request: Request) -> Response:
        raw = await read_raw(request, serving.limits)
        return await serving.repeats.once(request, tenant_of(request), raw, lambda: answered(request, raw))

    async def answered(request: Request, raw: bytes) -> Response:
        body = parse(raw, ChatRequest)
        body.check(serving.limits)
        hints = Hints()
        hints.ignored(
            *body.ignored(), *(["idempotency-key"] * (bool(body.stream) and "idempotency-key" in request.headers))
        )
        ask = read_ask(body, request.headers, tenant_of(request), message_texts(body.messages), hints)
        card = serving.card(body.model)
        use = body.tool_use(serving.tool_style_of(card.name))
        reading = Reading(tools=None if use is None else use.style)
        first = body.sampling() if use is None else use.held(body.sampling())
        serving.check_tokens(card.name, first)
        tokenizer = serving.tokenizer(card.name) if body.logprobs else None

        async with AsyncExitStack() as stack:
            room = await stack.enter_async_context(entered(serving.manager, serving.directory, ask))
            prompt = chat_prompt(body.messages, room.resolve, tools=serving.offered(card.name, body.tools, use))
            wanted = [(prompt, replace(body.sampling(choice), format=first.format)) for choice in range(body.n or 1)]
            prompt_ids = await _prompt_ids(serving, card.name, prompt) if body.return_token_ids else None
            kind = "chat.completion.chunk" if body.stream else "chat.completion"
            answer = serving.answer("chatcmpl", kind, body.model or card.name, body.service_tier)
            try:
                begun = await stack.enter_async_context(room.begun(answer.id, card.name, wanted, reading))
            except BadSchema as error:
                raise invalid(body.format_field(), error.message, "invalid_schema") from None
            if body.stream:
                events = _stream(answer, begun, body, prompt_ids, tokenizer)
                headers = begun.headers()
                return EventStream(events, owner=stack.pop_all(), keep_alive_s=serving.keep_alive_s, headers=headers)
            results = await while_connected(request.receive, _results(begun.tasks))
            usages = [result.usage for result in results]
            data = completion(answer, results, prompt_ids or _rendered_ids(begun.tasks[0], body), tokenizer)
            return send_json(data | begun.object(usages), begun.headers(usages))

    return routes


async def _prompt_ids(serving: Serving, model: str, prompt: ChatPrompt) -> list[int] | None:
    """`None` where the prompt has holes: its ids are known once they are filled. Errors: `ApiError` 400."""
    tokenizer = serving.tokenizer(model)
    return None if prompt.inputs() else list(await asyncio.to_thread(tokenizer.encode, prompt.bind({})))


def _rendered_ids(task: Task, body: ChatRequest) -> list[int] | None:
    ids = task.rendered.ids if body.return_token_ids and task.rendered is not None else None
    return None if ids is None else list(ids)


async def _results(tasks: Sequence[Task]) -> list[TaskResult]:
    return await asyncio.gather(*(task.finished() for task in tasks))


def completion(
    answer: Answer,
    results: Sequence[TaskResult],
    prompt_ids: list[int] | None = None,
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """The answer, whole. With `prompt_ids` all token ids are in it, with `tokenizer` the log probabilities."""
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": _message(result),
            "finish_reason": result.finish.value,
            "logprobs": None if tokenizer is None else chat_logprobs(tokenizer, result.logprobs),
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


async def _stream(
    answer: Answer,
    begun: Begun,
    body: ChatRequest,
    prompt_ids: list[int] | None,
    tokenizer: Tokenizer | None,
) -> AsyncGenerator[bytes, None]:
    """Each choice says its role, its text as it comes, and why it ended; then the usage, if asked for. What is said of
    the whole (the receipt, the ids of a prompt that had holes) is on the last chunk."""
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    head = answer.head() | ({"usage": None} if with_usage else {})
    tasks = begun.tasks

    def chunk(of_all: dict[str, Any], index: int, delta: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return event(head | of_all | {"choices": [choice]})

    ids: dict[str, Any] = {} if prompt_ids is None else {"prompt_token_ids": prompt_ids}
    for index in range(len(tasks)):
        yield chunk({} if index else ids, index, {"role": "assistant", "content": "", "refusal": None})
    told = [0] * len(tasks)  # calls of tools, of each choice
    usages: dict[int, Usage] = {}
    async for index, piece in merge([task.chunks() for task in tasks]):
        drawn: dict[str, Any] = {"token_ids": list(piece.tokens)} if body.return_token_ids else {}
        if tokenizer is not None:
            drawn["logprobs"] = chat_logprobs(tokenizer, piece.logprobs)
        delta = _delta(piece, told[index])
        told[index] += len(piece.calls)
        if delta or (drawn and piece.tokens):
            yield chunk({}, index, delta, **drawn)
        if piece.finish is not None:
            usages[index] = piece.usage or Usage()
            last: dict[str, Any] = {}
            if len(usages) == len(tasks):
                late = _rendered_ids(tasks[0], body) if prompt_ids is None else None
                last = {} if late is None else {"prompt_token_ids": late}
                last |= {} if with_usage else begun.object(list(usages.values()))
            yield chunk(last, index, {}, finish_reason=piece.finish.value)
    if with_usage:
        used = [usages[index] for index in range(len(tasks))]
        yield event(head | {"choices": [], "usage": usage_of(used, len(tasks))} | begun.object(used))
    yield DONE


def _delta(piece: Chunk, told: int) -> dict[str, Any]:
    """What a stretch of output adds to the message, after `told` calls of tools. A call is told when it is whole."""
    delta: dict[str, Any] = {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.text:
        delta["content"] = piece.text
    if piece.calls:
        delta["tool_calls"] = [{"index": told + place, **wire_call(call)} for place, call in enumerate(piece.calls)]
    return delta
