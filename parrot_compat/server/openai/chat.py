"""POST /v1/chat/completions: one conversation in, `n` answers out, whole or as they come.

It knows nothing of how calls are run. Whatever is wrong with the request is said before the first byte.

The invariant: the chunks of a stream, put together, are the answer that the same request gets unstreamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.core.call import Usage
from parrot_compat.core.prompt import ChatPrompt
from parrot_compat.core.task import Task
from parrot_compat.server.limits import ignored_header, read_body
from parrot_compat.server.sse import DONE, EventStream, event, merge, while_connected

from .chat_schema import ChatRequest, chat_prompt
from .serving import Answer, Serving, send_json, tenant_of, usage_of

__all__ = ["router"]


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions", summary="Answer a conversation", tags=["OpenAI"])
    async def create_chat_completion(request: Request) -> Response:
        body = await read_body(request, ChatRequest, serving.limits)
        body.check(serving.limits)
        headers = ignored_header(body.ignored())
        card = serving.card(body.model)
        prompt = chat_prompt(body.messages)
        wanted = [(prompt, body.sampling(choice)) for choice in range(body.n or 1)]
        prompt_ids = await _prompt_ids(serving, card.name, prompt) if body.return_token_ids else None

        async with AsyncExitStack() as stack:
            answer = serving.answer("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion", card)
            tasks = await stack.enter_async_context(serving.submitted(answer, tenant_of(request), wanted))
            if body.stream:
                events = _stream(answer, tasks, body, prompt_ids)
                return EventStream(events, owner=stack.pop_all(), keep_alive_s=serving.keep_alive_s, headers=headers)
            return send_json(await while_connected(request.receive, _whole(answer, tasks, prompt_ids)), headers)

    return routes


async def _prompt_ids(serving: Serving, model: str, prompt: ChatPrompt) -> list[int]:
    tokenizer = serving.tokenizer(model)
    return list(await asyncio.to_thread(tokenizer.encode, prompt.bind({})))


async def _whole(answer: Answer, tasks: Sequence[Task], prompt_ids: list[int] | None) -> dict[str, Any]:
    results = await asyncio.gather(*(task.finished() for task in tasks))
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": result.text, "refusal": None},
            "logprobs": None,
            "finish_reason": result.finish.value,
        }
        for index, result in enumerate(results)
    ]
    data = answer.head() | {"choices": choices}
    if prompt_ids is not None:
        data["prompt_token_ids"] = prompt_ids
        for choice, result in zip(choices, results, strict=True):
            choice["token_ids"] = list(result.tokens)
    return data | {"usage": usage_of([result.usage for result in results], len(results))}


async def _stream(
    answer: Answer, tasks: Sequence[Task], body: ChatRequest, prompt_ids: list[int] | None
) -> AsyncGenerator[bytes, None]:
    """Each choice says its role, its text as it comes, and why it ended; then the usage, if asked for."""
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    head = answer.head() | ({"usage": None} if with_usage else {})

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **more}
        return event(head | first | {"choices": [choice]})

    first = {} if prompt_ids is None else {"prompt_token_ids": prompt_ids}
    for index in range(len(tasks)):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
        first = {}
    usages = [Usage()] * len(tasks)
    async for index, piece in merge([task.chunks() for task in tasks]):
        ids: dict[str, Any] = {"token_ids": list(piece.tokens)} if prompt_ids is not None else {}
        if piece.text or (ids and piece.tokens):
            yield chunk(index, {"content": piece.text}, **ids)
        if piece.finish is not None:
            usages[index] = piece.usage or Usage()
            yield chunk(index, {}, piece.finish.value)
    if with_usage:
        yield event(head | {"choices": [], "usage": usage_of(usages, len(tasks))})
    yield DONE
