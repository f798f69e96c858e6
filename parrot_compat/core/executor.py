"""The executor: one task on one engine.

It knows nothing of sessions, the graph or why this engine was chosen.

The invariant: whatever the engine does (answer, raise, die, fall silent and be cancelled), the task is over when
`run` returns, unless it may run again; and the engine holds nothing of it any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from .call import ResolvedSampling
from .engine import Chunk, ContextId, Engine, EngineInfo, Generate, Hurries, Pours
from .errors import ContextLost, EngineError, EngineLost, ParrotError
from .fleet import Fleet, Member
from .prompt import Content, Tokens
from .task import Task
from .task_events import beginning_of

__all__ = ["Attempt", "Executor"]

_ATTEMPTS = 2  # a prompt that kills engines must not be carried from one to the next
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A task on an engine. The numbers are what its engine is charged with until they are paid back."""

    task: Task
    member: Member
    new_tokens: int
    """Prompt tokens that placement expects the engine to compute."""
    tokens_ahead: int
    """Prompt tokens of others that it had to compute before."""
    context: ContextId | None = None
    """`None`: the engine has not been asked yet."""
    has_first_token: bool = False


class Executor:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._clock = fleet.clock

    async def run(self, attempt: Attempt) -> bool:
        """Run the task to its end. True: it is not over and may run again, since nobody has seen anything of it."""
        task, member = attempt.task, attempt.member
        try:
            await self._generate(attempt)
        except asyncio.CancelledError:
            task.cancel()  # does nothing where the cancel came from the task itself
            raise
        except (EngineLost, ContextLost) as error:
            if isinstance(error, EngineLost):
                self._fleet.lost(member, error)
            if not task.has_spoken and task.attempts < _ATTEMPTS and self._fleet.expects(task.model):
                return not task.is_over
            task.fail(error)
        except ParrotError as error:
            task.fail(error)
        except Exception as error:  # what no engine should raise must not leave a reader waiting either
            _log.exception("engine %r failed on call %r", member.info.name, task.call.id)
            task.fail(EngineError(f"engine {member.info.name!r} failed: {type(error).__name__}: {error}"))
        return False

    @staticmethod
    def hurry(attempt: Attempt) -> None:
        """The task has less slack than it began with: an engine that can use that is told."""
        engine = attempt.member.engine
        if attempt.context is not None and isinstance(engine, Hurries):
            engine.hurry(attempt.context, attempt.task.scope.slack_s)

    async def _generate(self, attempt: Attempt) -> None:
        task, member = attempt.task, attempt.member
        context = attempt.context = self._fleet.draw_context()
        content = _content(task, member)
        sampling = _sampling(task, member.info, content)
        generate = Generate(
            context=context,
            content=content,
            sampling=sampling,
            scope=task.scope,
            is_parallel=task.call.reading.is_parallel,
            marks=task.marks,
        )

        def take(chunk: Chunk) -> bool:
            task.push(chunk)
            if not attempt.has_first_token and task.has_spoken:
                self._first_token(attempt, chunk)
            return not task.is_over

        try:
            await _pour(member.engine, generate, take)
            if task.result is not None and attempt.has_first_token:
                self._learn(attempt, task.result.usage.output_tokens)
        finally:
            await self._free(member, context)
        if not task.is_over:
            raise EngineError(f"engine {member.info.name!r} ended call {task.call.id!r} without saying how")

    def _first_token(self, attempt: Attempt, chunk: Chunk) -> None:
        task = attempt.task
        attempt.has_first_token = True
        assert task.first_token_s is not None and task.started_s is not None
        attempt.member.prefilled(attempt.new_tokens, attempt.tokens_ahead, task.first_token_s - task.started_s)
        self._fleet.events.emit(beginning_of(task, chunk))

    def _learn(self, attempt: Attempt, output_tokens: int) -> None:
        task = attempt.task
        assert task.finished_s is not None and task.first_token_s is not None
        attempt.member.decoded(output_tokens - 1, task.finished_s - task.first_token_s)

    async def _free(self, member: Member, context: ContextId) -> None:
        if member.is_lost:
            return
        try:
            await member.engine.free(context)
        except EngineLost as error:
            self._fleet.lost(member, error)
        except Exception:  # the answer is out already; a context that stays is the engine's own trouble
            _log.exception("engine %r did not free context %d", member.info.name, context)


async def _pour(engine: Engine, generate: Generate, take: Callable[[Chunk], bool]) -> None:
    if isinstance(engine, Pours):
        await engine.pour(generate, take)
        return
    # The port promises that closing the iterator stops the work; every engine's iterator is a generator.
    async with aclosing(cast("AsyncGenerator[Chunk, None]", engine.generate(generate))) as stream:
        async for chunk in stream:
            if not take(chunk):
                return


def _content(task: Task, member: Member) -> Content:
    assert task.rendered is not None
    if member.info.takes == "text":
        return task.rendered.content
    if task.rendered.ids is None:  # accepted when only text engines served the model
        assert member.tokenizer is not None
        return Tokens(member.tokenizer.encode(task.rendered.content))
    return Tokens(task.rendered.ids)


def _sampling(task: Task, info: EngineInfo, content: Content) -> ResolvedSampling:
    # How long the prompt is, a text engine finds out by itself.
    room = info.context_tokens - len(content.ids) if isinstance(content, Tokens) else info.context_tokens
    return task.call.sampling.resolve(info.defaults, room=max(1, room), seed=task.seed)
