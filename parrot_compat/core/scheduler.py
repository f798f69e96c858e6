"""The scheduler: ready tasks wait here until placement gives them an engine.

It knows nothing of sessions, the graph or HTTP. It is woken by what happens (a task becomes ready, one leaves its
engine, an engine joins or goes) and never looks at a clock.

The invariant: a ready task is in the queue, or on an engine, or over; and where nothing can ever serve it, or nothing
that could has been there for long, it fails.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from functools import partial

from .background import Background
from .errors import EngineError, NoEngineForModel, PromptTooLong
from .events import CallPlaced, CallRetried
from .executor import Attempt, Executor
from .fleet import Fleet, Member
from .placement import Assignment, Candidate, place
from .queue import ReadyQueue
from .rendering import refuse_too_long
from .task import Task

__all__ = ["Scheduler"]

_LOOKAHEAD = 32  # tasks looked at beyond the free rows: one that waits for its prefix's engine must not block others
_MOST_LOOKED_AT = 1024
"""Tasks looked at where none of the first fits an engine that is free."""


class Scheduler:
    def __init__(self, fleet: Fleet, background: Background) -> None:
        self._fleet = fleet
        self._executor = Executor(fleet)
        self._background = background
        self._queues: dict[str, ReadyQueue] = {}  # by model, those where anything waits
        self._attempts: dict[Task, Attempt] = {}
        self._turns = itertools.count()
        self._is_awake = False
        fleet.watch(self.wake)

    @property
    def queued(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, task: Task) -> None:
        if task.turn is None:
            task.turn = next(self._turns)
        self._queues.setdefault(task.model, ReadyQueue()).put(task)
        self.wake()

    def forget(self, task: Task) -> None:
        """The task is over: it needs no engine any more."""
        if queue := self._queues.get(task.model):
            queue.forget(task)

    def hurry(self, task: Task) -> None:
        """The task runs, and has less slack than it began with."""
        self._executor.hurry(self._attempts[task])

    def wake(self) -> None:
        """Look at the queue once, when everything that happens at this moment has happened."""
        if self._queues and not self._is_awake:
            self._is_awake = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def check(self) -> None:
        for queue in self._queues.values():
            queue.check()
        assert all(not attempt.task.is_over or attempt.task.work is None for attempt in self._attempts.values())
        for member in self._fleet:
            assert member.rows == sum(attempt.member is member for attempt in self._attempts.values())

    # ---- inside ----------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        self._is_awake = False
        for model, queue in tuple(self._queues.items()):
            if (error := self._why_in_vain(model)) is None:
                self._dispatch_model(model, queue)
            else:
                for task in queue:
                    task.fail(error)
            if not queue:
                self._queues.pop(model, None)

    def _why_in_vain(self, model: str) -> EngineError | None:
        """Why nothing should wait for an engine of the model."""
        if not self._fleet.expects(model):
            return NoEngineForModel(f"the last engine that served model {model!r} is gone")
        return self._fleet.away(model)

    def _dispatch_model(self, model: str, queue: ReadyQueue) -> None:
        members = self._fleet.serving(model)
        while queue and self._place(model, queue, members):
            pass

    def _place(self, model: str, queue: ReadyQueue, members: Sequence[Member]) -> bool:
        """Start what can be of the first of the queue. True: a further look may start more."""
        free_rows = _free_rows(members)
        if free_rows == 0:
            return False
        window = None if free_rows is None else free_rows + _LOOKAHEAD
        tasks = queue.first(window)
        if self._refused(tasks, model):
            return True
        if window is not None:
            tasks = _that_fit(tasks, queue, window, _room(members))
        placed = {
            assignment.key: assignment
            for assignment in place([_candidate(task) for task in tasks], [member.view() for member in members])
        }
        for task in tasks:
            if task in placed:
                queue.start(task)
                self._start(task, placed[task])
        return window is not None and bool(placed)

    def _refused(self, tasks: Sequence[Task], model: str) -> bool:
        """True: some were too long for any engine that is left, and have failed."""
        limit = self._fleet.context_tokens(model)
        for task in tasks:
            try:
                refuse_too_long(_tokens(task), model, limit)
            except PromptTooLong as error:  # the engine that had room for it is gone
                task.fail(error)
        return any(task.is_over for task in tasks)

    def _start(self, task: Task, assignment: Assignment) -> None:
        assert task.rendered is not None
        member = self._fleet.member(assignment.engine)
        new_tokens = task.rendered.prompt_tokens - assignment.reused_tokens
        attempt = Attempt(task=task, member=member, new_tokens=new_tokens, tokens_ahead=member.waiting_tokens)
        member.begin(new_tokens, task.rendered.blocks)
        self._attempts[task] = attempt
        work = self._background.spawn(self._executor.run(attempt), f"call {task.call.id}")
        task.start(member.info.name, work)
        work.add_done_callback(partial(self._ended, attempt))
        self._fleet.events.emit(
            CallPlaced(
                at_s=self._fleet.clock.now(),
                session=task.flow.session,
                call=task.call.id,
                engine=member.info.name,
                prompt_tokens=task.rendered.prompt_tokens,
                reused_tokens=assignment.reused_tokens,
                attempt=task.attempts,
            )
        )

    def _ended(self, attempt: Attempt, work: asyncio.Task[bool]) -> None:
        """The engine has let go of the task. A callback: work cancelled before its first step runs no `finally`."""
        task, member = attempt.task, attempt.member
        del self._attempts[task]
        assert task.started_s is not None
        member.end(self._fleet.clock.now() - task.started_s, 0 if attempt.has_first_token else attempt.new_tokens)
        if work.cancelled():
            task.cancel()
        elif work.exception() is None and work.result() and not task.is_over:
            self._retry(task, member)
        self.wake()

    def _retry(self, task: Task, member: Member) -> None:
        task.back_to_queue()
        self._fleet.events.emit(
            CallRetried(
                at_s=self._fleet.clock.now(),
                session=task.flow.session,
                call=task.call.id,
                engine=member.info.name,
            )
        )
        (task.on_return or self.put)(task)


def _that_fit(tasks: list[Task], queue: ReadyQueue, window: int, room: int | None) -> list[Task]:
    """`tasks`, the first `window` of the queue. Where none of them fits an engine that has a free row, those behind
    them that do: they would wait for what cannot start."""
    if room is None or any(_tokens(task) < room for task in tasks):
        return tasks
    while window < min(len(queue), _MOST_LOOKED_AT):
        window *= 4
        if fitting := [task for task in queue.first(window) if _tokens(task) < room]:
            return fitting
    return tasks


def _room(members: Sequence[Member]) -> int | None:
    """The largest context among those that have a free row: what does not fit it can start nowhere now."""
    rooms = [member.context_tokens for member in members if member.free_rows != 0]
    known = [room for room in rooms if room is not None]
    return max(known, default=0) if len(known) == len(rooms) else None


def _tokens(task: Task) -> int:
    assert task.rendered is not None
    return task.rendered.prompt_tokens


def _free_rows(members: Sequence[Member]) -> int | None:
    """Over all of them; `None` is no limit."""
    rows = [member.free_rows for member in members]
    limited = [free for free in rows if free is not None]
    return sum(limited) if len(limited) == len(rows) else None


def _candidate(task: Task) -> Candidate:
    assert task.rendered is not None
    return Candidate(
        key=task,
        prompt_tokens=task.rendered.prompt_tokens,
        output_tokens=task.expected_tokens,
        blocks=task.rendered.blocks,
        tenant=task.flow.tenant,
        group=task.group,
        slack_s=task.objective.slack_s,
    )
