"""A task: a call in progress, from acceptance to its result.

It knows nothing of engines, placement or the graph; its owner (the session) is told once when it ends.

The invariant: a task ends exactly once, with a result or an error, and its output variable ends with it.
Whoever follows its chunks, early or late, gets all of its answer and then the end. What it ran with, and each chunk as
it came, is kept until it is over and nobody is known to follow it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from .answer import Answer
from .call import Call, Finish, Reading, Usage
from .clock import Clock
from .engine import Chunk, Scope
from .errors import Cancelled, ParrotError
from .flow import Flow
from .frames import without_frames
from .lengths import USUAL_TOKENS
from .life import Life, Lives
from .news import News
from .objective import Objective
from .rendering import Rendered
from .result import TaskResult
from .task_state import TaskState
from .variable import Variable

__all__ = ["Task", "TaskState"]

_SILENCE = Chunk()

HEAD_START_S = 60.0
"""By which work of an app that began long ago goes before work of one that has just come."""


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
        on_return: Callable[[Task], None] | None = None,
        expected_tokens: int | None = None,
        reading: Reading | None = None,
        is_newcomer: bool = False,
    ) -> None:
        """`on_return`: called when it is ready again, its engine lost. `is_newcomer`: its app had asked for no more."""
        self.call = call
        self.model = model
        self.output = output
        self.flow = flow
        self.seed = seed
        most = call.sampling.max_tokens
        usual = USUAL_TOKENS if most is None else min(most, USUAL_TOKENS)
        self.expected_tokens = usual if expected_tokens is None else expected_tokens
        """Of its answer; not promised."""
        self.objective = Objective()
        self.state = TaskState.WAITING
        self.rendered: Rendered | None = None
        """What it runs with. Let go of when it is over and not `followed`."""
        self.prompt_tokens: int | None = None
        """As it was rendered; of a text engine a guess."""
        self.is_rendering = False
        """True while a thread encodes its prompt."""
        self.engine: str | None = None
        self.is_newcomer = is_newcomer
        self.attempts = 0
        self.charged_tokens = 0  # of its prompt, as admission counts them while it is open
        self.turn: int | None = None
        """Its number in the queue, kept when it comes back."""
        self.submitted_s = clock.now()
        self.ready_s: float | None = None
        self.started_s: float | None = None
        self.first_token_s: float | None = None
        self.finished_s: float | None = None
        self.failure: ParrotError | None = None
        self.result: TaskResult | None = None
        self.work: asyncio.Task[bool] | None = None
        """What runs it, while it runs; cancelling a running task cancels this."""
        self._clock = clock
        self._answer = Answer(reading or call.reading)
        self._news = News()
        self._near = group  # calls that are alike, where it feeds no stage
        self.on_return: Callable[[Task], None] | None = on_return
        self._on_end: Callable[[Task], None] | None = on_end
        self._when_over: list[Callable[[Task], object]] = []
        self._lives = Lives()
        self._followers = 0

    @property
    def group(self) -> str | None:
        """Tasks better run together with this one."""
        return self.objective.group or self._near

    @property
    def marks(self) -> tuple[str, ...]:
        """What the reading of its answer goes by, see `Generate.marks`."""
        return self._answer.marks

    @property
    def scope(self) -> Scope:
        return Scope(
            namespace=self.flow.tenant,
            flow=self.flow.name,
            slack_s=self.objective.slack_s,
        )

    @property
    def due_s(self) -> float:
        """Whose turn it is: what is wanted at once counts from when its app began, all else from when it was ready,
        and both from as much later as nobody would notice. An app that never ends would keep all others waiting: its
        beginning counts for `HEAD_START_S` at most. As much has the one call of an app that has made no other."""
        assert self.ready_s is not None
        began_s, oldest_s = self.flow.began_s, self.ready_s - HEAD_START_S
        if began_s is None or self.objective.wanted != "latency":
            began_s = self.ready_s
        elif self.is_newcomer:
            began_s = oldest_s
        return self.objective.slack_s + max(began_s, oldest_s)

    # ---- for receipts ------------------------------------------------------------------------------

    @property
    def queue_s(self) -> float | None:
        """How long it waited for an engine, once it could run."""
        return None if self.started_s is None or self.ready_s is None else self.started_s - self.ready_s

    @property
    def cached_tokens(self) -> int | None:
        """Of its prompt, not computed again; known when it has finished."""
        return None if self.result is None else self.result.usage.cached_tokens

    @property
    def drawn_tokens(self) -> int:
        """So far. Of a text engine, known when it has finished."""
        return self.result.usage.output_tokens if self.result else self._answer.drawn_tokens

    # ---- for readers -------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self.result is not None or self.failure is not None

    @property
    def has_spoken(self) -> bool:
        """True once a reader may have seen something: from then on the call cannot be run anew."""
        return bool(self._answer.chunks)

    async def finished(self) -> TaskResult:
        """The result, or the error the task failed with. A reader that leaves disturbs nobody."""
        await self.output.get()
        assert self.result is not None
        return self.result

    def chunks(self) -> AsyncIterator[Chunk]:
        """Every chunk from the first on, then the end or the error; a reader may come late, and gets one chunk where
        nobody has followed the task until then."""
        return self._answer.follow()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Within the block it keeps what it ran with and each chunk as it came, when it is over too."""
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1
            self._shrink()

    async def prepared(self) -> None:
        """Returns when its prompt is rendered, or it cannot be yet (inputs are missing), or it is over."""
        while self.is_rendering and not self.is_over:
            await self._news.heard()

    def when_over(self, listener: Callable[[Task], object]) -> None:
        """`listener` is called when the task is over, at once if it is."""
        if self.is_over:
            listener(self)
        else:
            self._when_over.append(listener)

    def keep_alive(self, life: Life) -> None:
        """`life` is held for as long as the task can run or runs."""
        if not self.is_over:
            self._lives.add(life)

    def cancel(self, cause: ParrotError | None = None) -> None:
        """Stop, wherever it is. The output fails with `cause` at once, the engine's work is closed behind it."""
        self.end(TaskState.CANCELLED, cause or Cancelled(f"call {self.call.id!r} was cancelled"))

    # ---- for the session, the scheduler and the executor ----------------------------------------------

    def make_ready(self, rendered: Rendered) -> None:
        assert self.state is TaskState.WAITING, self.state
        self.rendered = rendered
        self.prompt_tokens = rendered.prompt_tokens
        self.is_rendering = False
        self.state = TaskState.READY
        self.ready_s = self._clock.now()
        self._lives.hold()
        self._news.tell()

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
        if not (chunk.tokens or chunk.text) and chunk == _SILENCE:
            return  # says nothing: the call may still be run anew
        chunk = self._answer.add(chunk)
        if self.first_token_s is None:
            self.first_token_s = self._clock.now()
        self.output.append(chunk.text + chunk.refusal)
        if chunk.finish is not None:
            self._finish(chunk.finish, chunk.usage or Usage())

    def fail(self, error: ParrotError) -> None:
        self.end(TaskState.FAILED, error)

    def end(self, state: TaskState, error: ParrotError) -> None:
        if self.is_over:
            return
        self.state = state
        self.failure = error = without_frames(error)
        self.finished_s = self._clock.now()
        work, self.work = self.work, None
        if work is not None and state is TaskState.CANCELLED:
            work.cancel()
        self._answer.end(error)
        self.output.fail(error)
        self._leave()

    def check(self) -> None:
        assert self.output.is_settled == self.is_over
        assert self.is_over == (self.state in (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED))
        assert not (self.result is not None and self.failure is not None)
        assert (self.rendered is None) <= (self.state not in (TaskState.READY, TaskState.RUNNING))
        assert (self.rendered is not None) <= (not self.is_over or self._followers > 0)

    # ---- inside ----------------------------------------------------------------------------------------

    def _finish(self, finish: Finish, usage: Usage) -> None:
        assert self.engine is not None and self.started_s is not None and self.first_token_s is not None
        self.finished_s = self._clock.now()
        self.state = TaskState.FINISHED
        self.work = None
        self.result = TaskResult.of(
            self._answer.end(),
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
        self._news.tell()
        listeners, self._when_over = self._when_over, []
        for listener in listeners:
            listener(self)
        self._lives.release()
        on_end, self._on_end, self.on_return = self._on_end, None, None
        if on_end is not None:
            on_end(self)
        self._shrink()

    def _shrink(self) -> None:
        """A session may keep it for days."""
        if self.is_over and not self._followers:
            self.rendered = None
            self._answer.fold()
