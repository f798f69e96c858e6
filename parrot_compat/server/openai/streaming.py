"""Streaming: the choices of an answer as they come, in the chunks of OpenAI's API.

It knows nothing of what a choice says: each endpoint tells what opens its stream and what a piece becomes.

The invariant: every choice ends once; what is said of the whole (its receipt, and the usage if that was asked for) is
said once, when all of them have ended, and `[DONE]` is the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Literal

from starlette.requests import Request

from parrot_compat.core.call import Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.task import Task, TaskState
from parrot_compat.server.serving import Serving
from parrot_compat.server.sessions.rooms import Begun
from parrot_compat.server.sse import DONE, Frame, event, merge, while_connected

from .answering import AnswerHead, usage_of
from .sampling_schema import SamplingRequest

__all__ = ["ChoiceStream", "first_word"]

_NOTHING: Mapping[str, Any] = {}


async def first_word(serving: Serving, request: Request, model: str, tasks: Sequence[Task]) -> None:
    """Before a stream begins: where another server runs the model, wait until one of the answers has begun, or for as
    long as a stream may be silent. What that server refuses has its own status then, as unstreamed. Errors: the failure
    of a task, `Cancelled` where the client has left."""
    if serving.manager.tokenizer(model) is not None:
        return  # what an engine of ours refuses, it has refused by now
    if any(task.state is TaskState.WAITING and not task.is_rendering for task in tasks):
        return  # for inputs, which the client may be about to give: nothing has been asked yet

    async def heard() -> None:
        async with aclosing(merge([task.chunks() for task in tasks])) as pieces:
            await anext(pieces, None)

    with suppress(TimeoutError):
        async with asyncio.timeout(serving.keep_alive_s):
            await while_connected(request.receive, heard())


class ChoiceStream:
    def __init__(
        self,
        answer: AnswerHead,
        begun: Begun,
        body: SamplingRequest,
        field: Literal["delta", "text"],
        of_text: Callable[[str], Any],
    ) -> None:
        """`field` is where a choice says what it adds, `of_text` what is there where that is text and nothing else."""
        self.count = len(begun.tasks)
        self._with_usage, self._with_usage_always = body.tells_usage(), body.tells_usage_always()
        self._head = answer.head() | ({"usage": None} if self._with_usage else {})
        self._begun = begun
        self._field = field
        self._of_text = of_text
        self._frames: dict[int, Frame] = {}
        self._usages: dict[int, Usage] = {}  # of the choices that have ended
        self._so_far = Usage()  # of all that has come, where each chunk tells it
        self._drawn: dict[int, int] = {}  # by choice, likewise
        self._read: set[int] = set()  # prompts that are in it

    async def events(
        self, opening: Iterable[bytes], told: Callable[[int, Chunk], Iterable[bytes]]
    ) -> AsyncGenerator[bytes, None]:
        """`told` gives what a piece of a choice becomes; when it is asked of a last one, that choice has ended."""
        for one in opening:
            yield one
        async for index, piece in merge([task.chunks() for task in self._begun.tasks]):
            if piece.finish is not None:
                self._usages[index] = piece.usage or Usage()
            if self._with_usage_always:
                self._count(index, piece)
            for one in told(index, piece):
                yield one
        if self._with_usage:
            usages = self._in_order()
            usage = {"choices": [], "usage": usage_of(usages, self._begun.choices)}
            yield event(self._head | usage | self._begun.object(usages))
        yield DONE

    def _count(self, index: int, piece: Chunk) -> None:
        """One of thousands of choices goes on: only what it adds is looked at."""
        before = self._drawn.get(index, 0)
        ended = self._usages.get(index)
        self._drawn[index] = before + len(piece.tokens) if ended is None else ended.output_tokens
        output_tokens = self._so_far.output_tokens + self._drawn[index] - before
        self._so_far = replace(self._so_far, output_tokens=output_tokens)
        of_prompt, prompt = ended or piece.prompt, index // self._begun.choices
        if of_prompt is not None and prompt not in self._read:
            self._read.add(prompt)
            self._so_far = replace(
                self._so_far,
                prompt_tokens=self._so_far.prompt_tokens + of_prompt.prompt_tokens,
                cached_tokens=self._so_far.cached_tokens + of_prompt.cached_tokens,
            )
        self._head["usage"] = usage_of([self._so_far])

    @property
    def is_over(self) -> bool:
        """All choices have ended."""
        return len(self._usages) == self.count

    def receipt(self) -> dict[str, Any]:
        """For the chunk that ends the last choice; where a chunk with the usage follows, the receipt is on that."""
        return self._begun.object(self._in_order()) if self.is_over and not self._with_usage else {}

    def chunk(
        self, index: int, adds: Any, finish: str | None = None, of_all: Mapping[str, Any] = _NOTHING, **more: Any
    ) -> bytes:
        """Of one choice; `of_all` is said beside it, `more` in it."""
        return event(self._data(index, adds, finish, of_all, more))

    def text(self, index: int, text: str) -> bytes:
        """A choice adds text and nothing else, as it mostly does."""
        if self._with_usage_always:
            return event(self._data(index, self._of_text(text)))
        if (frame := self._frames.get(index)) is None:
            frame = self._frames[index] = Frame(lambda text: self._data(index, self._of_text(text)))
        return frame.event(text)

    def _data(
        self,
        index: int,
        adds: Any,
        finish: str | None = None,
        of_all: Mapping[str, Any] = _NOTHING,
        more: Mapping[str, Any] = _NOTHING,
    ) -> dict[str, Any]:
        choice = {"index": index, self._field: adds, "logprobs": None, "finish_reason": finish, **more}
        return {**self._head, **of_all, "choices": [choice]}

    def _in_order(self) -> list[Usage]:
        return [self._usages[index] for index in range(self.count)]
