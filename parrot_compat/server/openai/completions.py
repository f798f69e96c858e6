"""POST /v1/completions: raw prompts in, `n` continuations of each out, whole or as they come.

It knows nothing of how calls are run. Choice `i` belongs to prompt `i // n`.

The invariant: the chunks of a stream, put together, are the answer that the same request gets unstreamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.core.call import Logprobs, TokenLogprobs
from parrot_compat.core.engine import Chunk
from parrot_compat.core.prompt import Content, Prompt, Text
from parrot_compat.core.rendering import about_tokens
from parrot_compat.core.result import TaskResult
from parrot_compat.core.task import Task
from parrot_compat.server.bodies import Raw, read_raw
from parrot_compat.server.errors import invalid
from parrot_compat.server.hints import Hints
from parrot_compat.server.json_values import written
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sessions.rooms import Begun, entered
from parrot_compat.server.sse import SseResponse, while_connected

from .answering import AnswerHead, answer_head, usage_of
from .completions_schema import CompletionRequest
from .logprobs import TextLogprobs, TokenWriter, Writes, prompt_logprobs
from .requests import read_request
from .streaming import ChoiceStream, first_word

__all__ = ["router"]

_TOLD = ("n", "best_of", "logprobs", "prompt_logprobs", "return_token_ids", "stream", "stream_options")
"""Of a request, what its answer is told by. Nothing else of it is kept while it waits, which may be for long."""


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/completions", summary="Continue a text", tags=["OpenAI"])
    async def create_completion(request: Request) -> Response:
        raw = Raw(await read_raw(request, serving.limits))
        return await serving.repeats.once(request, tenant_of(request), raw, lambda: answered(request, raw))

    async def answered(request: Request, raw: Raw) -> Response:
        body = raw.parse(CompletionRequest)
        ask, card = read_request(serving, body, Hints(), request.headers, tenant_of(request))
        with body.naming_format():
            samplings = body.samplings()
        serving.check_tokens(card.name, samplings[0])
        if samplings[0].prompt_logprobs is not None or body.return_token_ids:
            serving.tokenizer(card.name)  # there are ids to tell
        tells = body.logprobs is not None or body.prompt_logprobs is not None or body.chooses
        writer = TokenWriter(serving.manager.tokenizer(card.name), samplings[0].format) if tells else None
        prompts = body.prompts()
        echoes = await _echoes(serving, request, card.name, prompts) if body.echo else [""] * len(prompts)
        wanted = [(prompt, sampling) for prompt in prompts for sampling in samplings]

        async with AsyncExitStack() as stack:
            answer = answer_head(serving, "cmpl", "text_completion", body.model or card.name)
            room = await stack.enter_async_context(entered(serving.manager, serving.directory, ask))
            with body.naming_format():
                begun = await stack.enter_async_context(room.begun(answer.id, card.name, wanted, choices=body.drawn))
            if any(task.rendered is not None and task.rendered.ids == () for task in begun.tasks):
                raise invalid("prompt", "is empty: there is no token to go on from")
            known = _known(begun, echoes, body)
            body = CompletionRequest.model_construct(prompt="", **{name: getattr(body, name) for name in _TOLD})
            if body.stream:
                await first_word(serving, request, card.name, begun.tasks)
                events = _stream(answer, begun, body, known, writer)
                headers = begun.headers()
                return SseResponse(events, owner=stack.pop_all(), keep_alive_s=serving.keep_alive_s, headers=headers)
            finished = asyncio.gather(*(task.finished() for task in begun.tasks))
            results = await while_connected(request.receive, finished)
            usages = [result.usage for result in results]
            data = _whole(answer, results, body, known, writer) | begun.object(usages)
            is_large = body.return_token_ids  # those of a prompt stand in each of its choices
            return send_json(await asyncio.to_thread(written, data) if is_large else data, begun.headers(usages))

    return routes


@dataclass(frozen=True, slots=True)
class _Known:
    """What an answer repeats of its prompt."""

    prompt: Sequence[int] | None
    """Its tokens, where they are known."""
    echo: str = ""
    ids: list[int] | None = None
    first: int | None = None
    """Its first token, where all its tokens are told with their log probabilities."""

    def told_ids(self) -> dict[str, Any]:
        """For the chunk of a stream that repeats it."""
        return {} if self.ids is None else {"prompt_token_ids": self.ids, "token_ids": []}


async def _echoes(serving: Serving, request: Request, model: str, prompts: Sequence[Prompt]) -> list[str]:
    """The texts of the prompts. Errors: `BadPrompt` for ids out of the vocabulary, those of `Encoder.run`."""
    contents = [prompt.bind({}) for prompt in prompts]
    texts = [content.text for content in contents if isinstance(content, Text)]
    if len(texts) == len(contents):
        return texts
    tokenizer = serving.tokenizer(model)

    def text(content: Content) -> str:
        return content.text if isinstance(content, Text) else tokenizer.decode(tokenizer.encode(content))

    work = serving.encoder.run(
        tenant_of(request), sum(map(about_tokens, contents)), lambda: [text(content) for content in contents]
    )
    return await while_connected(request.receive, work)


def _known(begun: Begun, echoes: Sequence[str], body: CompletionRequest) -> list[_Known]:
    """One per prompt; its ids are those that were made for its calls."""
    tells = bool(body.echo) and body.logprobs is not None

    def of(task: Task, echo: str) -> _Known:
        ids = None if task.rendered is None else task.rendered.ids
        return _Known(
            prompt=ids,
            echo=echo,
            ids=list(ids) if body.return_token_ids and ids is not None else None,
            first=ids[0] if tells and ids else None,
        )

    return [of(task, echo) for task, echo in zip(begun.tasks[:: body.drawn], echoes, strict=True)]


def _whole(
    answer: AnswerHead,
    results: Sequence[TaskResult],
    body: CompletionRequest,
    known: list[_Known],
    writer: Writes | None,
) -> dict[str, Any]:
    choices, usages = [], [result.usage for result in results]
    for index, result in enumerate(_chosen(results, body)):
        place = index // (body.n or 1)
        prompt, scores = known[place], results[place * body.drawn].prompt_logprobs
        choice: dict[str, Any] = {
            "index": index,
            "text": prompt.echo + result.text,
            "logprobs": None,
            "finish_reason": result.finish.value,
        }
        if writer is not None and body.logprobs is not None:
            choice["logprobs"] = _told(writer, prompt, scores, result.logprobs, body.logprobs)
        if writer is not None and body.prompt_logprobs is not None:
            choice["prompt_logprobs"] = prompt_logprobs(writer, scores, body.prompt_logprobs)
        if prompt.ids is not None:
            choice |= {"prompt_token_ids": prompt.ids, "token_ids": list(result.tokens)}
        choices.append(choice)
    return answer.head() | {"choices": choices, "usage": usage_of(usages, body.drawn)}


def _chosen(results: Sequence[TaskResult], body: CompletionRequest) -> list[TaskResult]:
    """Of the answers to each prompt the `n` likeliest by token, best first; all, in order, if all are given."""
    if not body.chooses:
        return list(results)

    def likelihood(result: TaskResult) -> float:
        return sum(item.logprob for item in result.logprobs) / max(1, len(result.logprobs))

    groups = [results[start : start + body.drawn] for start in range(0, len(results), body.drawn)]
    return [one for group in groups for one in sorted(group, key=likelihood, reverse=True)[: body.n or 1]]


def _told(
    writer: Writes,
    known: _Known,
    scores: Sequence[TokenLogprobs],
    drawn: Sequence[Logprobs],
    most: int,
) -> dict[str, Any]:
    """Of the echoed prompt, if its first token is known, and then of what was drawn."""
    text = TextLogprobs(writer, known.prompt)
    if known.first is None:
        return text.told(drawn)
    shown = [replace(score, top=score.top[:most]) for score in scores]
    prompt = text.told_of_prompt(known.first, shown, known.echo)
    return {name: prompt[name] + told for name, told in text.told(drawn).items()}


def _stream(
    answer: AnswerHead, begun: Begun, body: CompletionRequest, known: list[_Known], writer: Writes | None
) -> AsyncGenerator[bytes, None]:
    """Each choice says its prompt, if that was asked for, its text as it comes, and with its last why it ended."""
    stream = ChoiceStream(answer, begun, body, "text", str)
    prompts = [known[index // (body.n or 1)] for index in range(stream.count)]
    logprobs = [] if writer is None else [TextLogprobs(writer, prompt.prompt) for prompt in prompts]
    says_more = bool(logprobs) or body.return_token_ids
    echoed: set[int] = set()

    def opening() -> Iterator[bytes]:
        for index, prompt in enumerate(prompts):
            if prompt.first is None and (prompt.echo or prompt.ids is not None):
                yield stream.chunk(index, prompt.echo, **prompt.told_ids())

    def told(index: int, piece: Chunk) -> Iterator[bytes]:
        prompt = prompts[index]
        if prompt.first is not None and index not in echoed:  # the engine had to find out its log probabilities first
            echoed.add(index)
            scores = logprobs[index].told_of_prompt(prompt.first, piece.prompt_logprobs, prompt.echo)
            yield stream.chunk(index, prompt.echo, logprobs=scores, **prompt.told_ids())
        if not says_more and piece.finish is None:
            if piece.text:
                yield stream.text(index, piece.text)
            return
        more: dict[str, Any] = {"token_ids": list(piece.tokens)} if body.return_token_ids else {}
        if logprobs:
            more["logprobs"] = logprobs[index].told(piece.logprobs)
        if piece.finish is not None:
            yield stream.chunk(index, piece.text, piece.finish.value, stream.receipt(), **more)
        elif piece.text or (more and (piece.tokens or piece.logprobs)):
            yield stream.chunk(index, piece.text, **more)

    return stream.events(opening(), told)
