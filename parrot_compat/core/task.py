"""A task: a call in progress, from acceptance to its result.

It knows nothing of engines, placement or the graph; its owner (the session) is told once when it ends.

The invariant: a task ends exactly once, with a result or an error, and its output variable ends with it.
Whoever follows its chunks, early or late, gets every one of them and then the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum

from .call import Call, Finish, Usage
from .clock import Clock
from .engine import Chunk, Scope
from .errors import Cancelled, ParrotError
from .events import CallFailed, CallFinished, CallSubmitted
from .rendering import Rendered
from .variable import Variable

__all__ = ["Flow", "Task", "TaskResult", "TaskState"]


class TaskState(StrEnum):
    WAITING = "waiting"
    """Inputs are missing."""
    READY = "ready"
    """In the scheduler's queue."""
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What fairness counts: the tenant, then the app. `order` numbers the sessions as they were opened."""

    tenant: str
    session: str
    order: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What a call came to. Times are seconds of the manager's clock."""

    text: str
    tokens: tuple[int, ...]
    """Drawn ids; empty from text engines."""
    finish: Finish
    usage: Usage
    engine: str
    submitted_s: float
    started_s: float
    first_token_s: float
    finished_s: float


class Task:
    """`waiting → ready → running → finished | failed | cancelled`; from running back to ready on a lost engine."""

    def __init__(
        self,
        call: Call,
        *,
        model: str,
        output: Variable,
        flow: Flow,
        group: str | None,
        seed: int,
        clock: Clock,
        on_end: Callable[[Task], None],
    ) -> None:
        self.call = call
        self.model = model
        self.output = output
        self.flow = flow
        self.group = group
        self.seed = seed
        self.state = TaskState.WAITING
        self.rendered: Rendered | None = None
        self.engine: str | None = None
        self.attempts = 0
        self.turn: int | None = None
        """Its number in the queue, kept when it comes back."""
        self.submitted_s = clock.now()
        self.started_s: float | None = None
        self.first_token_s: float | None = None
        self.finished_s: float | None = None
        self.failure: ParrotError | None = None
        self.result: TaskResult | None = None
        self.work: asyncio.Task[bool] | None = None
        """What runs it, while it runs; cancelling a running task cancels this."""
        self._clock = clock
        self._chunks: list[Chunk] = []
        self._news: asyncio.Event | None = None
        self._on_end: Callable[[Task], None] | None = on_end

    @property
    def scope(self) -> Scope:
        return Scope(namespace=self.flow.tenant, flow=f"{self.flow.tenant}/{self.flow.session}", group=self.group)

    # ---- for readers -------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self.result is not None or self.failure is not None

    @property
    def has_spoken(self) -> bool:
        """True once a reader may have seen something: from then on the call cannot be run anew."""
        return bool(self._chunks)

    async def finished(self) -> TaskResult:
        """The result, or the error the task failed with. A reader that leaves disturbs nobody."""
        await self.output.get()
        assert self.result is not None
        return self.result

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Every chunk from the first on, then the end or the error; a reader may come late."""
        position = 0
        while True:
            while position < len(self._chunks):
                position += 1
                yield self._chunks[position - 1]
            if self.is_over:
                break
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
        if self.failure is not None:
            raise self.failure

    def cancel(self, cause: ParrotError | None = None) -> None:
        """Stop, wherever it is. The output fails with `cause` at once, the engine's work is closed behind it."""
        self.end(TaskState.CANCELLED, cause or Cancelled(f"call {self.call.id!r} was cancelled"))

    # ---- for the session, the scheduler and the executor ----------------------------------------------

    def make_ready(self, rendered: Rendered) -> None:
        assert self.state is TaskState.WAITING, self.state
        self.rendered = rendered
        self.state = TaskState.READY

    def start(self, engine: str, work: asyncio.Task[bool]) -> None:
        assert self.state is TaskState.READY, self.state
        self.state = TaskState.RUNNING
        self.engine = engine
        self.work = work
        self.attempts += 1
        self.started_s = self._clock.now()

    def back_to_queue(self) -> None:
        assert self.state is TaskState.RUNNING and not self.has_spoken, self.state
        self.state = TaskState.READY
        self.work = None

    def push(self, chunk: Chunk) -> None:
        """Take the next chunk. The one with `finish` ends the task."""
        if self.is_over:
            return  # cancelled while the chunk was on its way
        if not chunk.text and not chunk.tokens and chunk.finish is None:
            return  # says nothing: the call may still be run anew
        if self.first_token_s is None:
            self.first_token_s = self._clock.now()
        self._chunks.append(chunk)
        self.output.append(chunk.text)
        if chunk.finish is None:
            self._tell()
        else:
            self._finish(chunk.finish, chunk.usage or Usage())

    def fail(self, error: ParrotError) -> None:
        self.end(TaskState.FAILED, error)

    def end(self, state: TaskState, error: ParrotError) -> None:
        if self.is_over:
            return
        self.state = state
        self.failure = error
        self.finished_s = self._clock.now()
        work, self.work = self.work, None
        if work is not None and state is TaskState.CANCELLED:
            work.cancel()
        self.output.fail(error)
        self._leave()

    def check(self) -> None:
        assert self.output.is_settled == self.is_over
        assert self.is_over == (self.state in (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED))
        assert not (self.result is not None and self.failure is not None)
        assert (self.rendered is None) <= (self.state not in (TaskState.READY, TaskState.RUNNING, TaskState.FINISHED))

    # ---- as events -------------------------------------------------------------------------------------

    def submission(self) -> CallSubmitted:
        return CallSubmitted(
            at_s=self.submitted_s,
            session=self.flow.session,
            tenant=self.flow.tenant,
            call=self.call.id,
            model=self.model,
            function=self.call.function,
            inputs=self.call.prompt.inputs(),
            output=self.call.output,
        )

    def ending(self) -> CallFinished | CallFailed:
        assert self.finished_s is not None
        if self.result is None:
            assert self.failure is not None
            return CallFailed(
                at_s=self.finished_s,
                session=self.flow.session,
                tenant=self.flow.tenant,
                call=self.call.id,
                function=self.call.function,
                model=self.model,
                engine=self.engine,
                error=self.failure,
                submitted_s=self.submitted_s,
            )
        return CallFinished(
            at_s=self.finished_s,
            session=self.flow.session,
            tenant=self.flow.tenant,
            call=self.call.id,
            function=self.call.function,
            model=self.model,
            engine=self.result.engine,
            finish=self.result.finish,
            usage=self.result.usage,
            submitted_s=self.submitted_s,
            started_s=self.result.started_s,
            first_token_s=self.result.first_token_s,
        )

    # ---- inside ----------------------------------------------------------------------------------------

    def _finish(self, finish: Finish, usage: Usage) -> None:
        assert self.engine is not None and self.started_s is not None and self.first_token_s is not None
        self.finished_s = self._clock.now()
        self.state = TaskState.FINISHED
        self.work = None
        self.result = TaskResult(
            text=self.output.text_so_far,
            tokens=tuple(token for chunk in self._chunks for token in chunk.tokens),
            finish=finish,
            usage=usage,
            engine=self.engine,
            submitted_s=self.submitted_s,
            started_s=self.started_s,
            first_token_s=self.first_token_s,
            finished_s=self.finished_s,
        )
        self.output.close()
        self._leave()

    def _leave(self) -> None:
        """Wake the readers and tell the owner, which lets go of the task: nothing points back at the session."""
        self._tell()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()
