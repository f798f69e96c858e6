"""A session: one run of an app, its calls and its variables.

It knows nothing of engines or placement: a call whose inputs are all there is rendered and handed to the scheduler,
with the objective that is deduced from what the app awaits.

The invariants: a call runs when its last input has its text, and fails as soon as one of them has failed; nothing
waits for something that has died; when a session closes everything under it has ended and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .call import Call, CallId, ObjectiveKind, Sampling
from .description import Description
from .errors import CallerError, Cancelled, ParrotError, UnknownSession
from .flow import Flow
from .function_calls import FunctionCall
from .given import Given
from .intake import Intake, Machinery
from .kept import Kept
from .life import Life
from .prompt import Content, Segment
from .task import Task
from .template import Template, TemplateForm
from .variable import Variable

__all__ = ["Session"]


class Session:
    """Made by `Manager.open_session`."""

    def __init__(
        self, id: str, *, flow: Flow, name: str | None, machinery: Machinery, on_close: Callable[[Session], None]
    ) -> None:
        self.id = id
        self.name = name
        self.flow = flow
        self.tenant = flow.tenant
        self._machinery = machinery
        self.life = Life(machinery.fleet.clock)
        """Held for as long as a request of the app is open."""
        self.is_closed = False
        self.kept = Kept(flow.tenant, machinery.admission)
        self._intake = Intake(flow, machinery, self.life, self._must_be_open)
        self._dataflow = self._intake.dataflow
        self._given = Given(self._dataflow, self.kept, machinery.admission)
        self._numbers = itertools.count(1)
        self._at_close: dict[Callable[[], object], None] = {}
        self._on_close = on_close
        self._expiry: asyncio.Task[None] | None = None

    # ---- calls -----------------------------------------------------------------------------------------

    async def submit(self, call: Call) -> Task:
        """Accept a call. It runs as soon as its inputs are there; its output is `task.output`.

        Errors, and then nothing was accepted: `BadPrompt`, `PromptTooLong`, `NoEngineForModel`, `ModelAway`,
        `QueueFull`, `TooManyCalls`, `TransformFailed`, and those of `Graph.add`.
        """
        return (await self.submit_all((call,)))[0]

    async def submit_all(
        self, calls: Sequence[Call], *, is_delivered: bool = True, width: int | None = None
    ) -> tuple[Task, ...]:
        """Accept all of the calls or none. They may read each other's outputs, in any order, and what belongs
        together among them (one consumer, or one prefix) is placed together. `is_delivered`: somebody takes each
        answer that nothing reads as it comes (see `objective`). `width`: so many run at once. Errors: as `submit`, and
        `SessionFull` where nobody takes them: what a client waits for is answered, here or elsewhere (`kept`)."""
        self._must_be_open()
        if not is_delivered:
            self.kept.let_calls_in()
        with self.life.held():
            async with self.kept.interned(calls) as interned:
                tasks = await self._intake.submit_all(interned, is_delivered, width)
        self.kept.follow(tasks)
        return tasks

    async def call(
        self,
        template: Template,
        bindings: Mapping[str, Segment],
        *,
        outputs: Mapping[str, Sampling] | None = None,
        sampling: Sampling | None = None,
        form: TemplateForm = "chat",
        function: str | None = None,
        model: str | None = None,
        objective: ObjectiveKind | None = None,
    ) -> dict[str, Task]:
        """Call a function: one task per output of its template, in order. An input is bound to a constant or to a
        variable of this session. `outputs` gives sampling of their own to some outputs; `sampling` is for the rest.

        Errors: `BadTemplate`, and those of `submit`.
        """
        made = await self.call_each(
            template,
            (bindings,),
            outputs=outputs,
            sampling=sampling,
            form=form,
            function=function,
            model=model,
            objective=objective,
        )
        return made[0]

    async def call_each(
        self,
        template: Template,
        many: Sequence[Mapping[str, Segment]],
        *,
        outputs: Mapping[str, Sampling] | None = None,
        sampling: Sampling | None = None,
        form: TemplateForm = "chat",
        function: str | None = None,
        model: str | None = None,
        objective: ObjectiveKind | None = None,
    ) -> list[dict[str, Task]]:
        """Call a function over each of many bindings, side by side: all are accepted, as one stage, or none.
        Otherwise as `call`."""
        called = FunctionCall(
            template=template,
            outputs=outputs or {},
            sampling=sampling,
            form=form,
            function=function,
            model=model,
            objective=objective,
        )
        calls = called.over(many, [f"{function or 'call'}-{next(self._numbers)}" for _ in many])
        tasks = iter(await self.submit_all(calls, is_delivered=False))
        return [{output: next(tasks) for output in outputs} for outputs in [template.outputs] * len(many)]

    def task(self, call: str) -> Task:
        """Errors: `CallerError` where there is no such call."""
        if (task := self._dataflow.tasks.get(CallId(call))) is None:
            raise CallerError(f"no call {call!r} in this session")
        return task

    def tasks(self) -> tuple[Task, ...]:
        """Every call accepted so far, in order."""
        return tuple(self._dataflow.tasks.values())

    def content(self, call: Call) -> Content | None:
        """What a call of any origin says with this session's values; `None` while it has not all of them.
        Errors: `UnknownVariable`, `TransformFailed`."""
        for name in call.prompt.inputs():
            self.variable(name)
        return self._dataflow.content(call) if self._dataflow.has_inputs(call) else None

    def is_needed(self, call: CallId) -> bool:
        """True where something that is not over reads the call's output, or somebody awaits it."""
        wanted = self.task(call).call
        return self._dataflow.is_read(wanted) or self._intake.deduction.is_awaited(wanted.output)

    def deliver(self, call: CallId, is_delivered: bool) -> None:
        """Somebody takes the call's answer on an open connection from now on, or nobody any more."""
        if not self.is_closed:
            self._intake.deduced(self._intake.deduction.deliver(call, is_delivered))

    def leave(self, call: CallId) -> None:
        """Whoever took the call's answer is gone: it goes on if something else needs it, else it is cancelled."""
        self.deliver(call, is_delivered=False)
        if not self.is_closed and not self.is_needed(call):
            self.task(call).cancel(Cancelled(f"the client of call {call!r} has left"))

    # ---- variables -------------------------------------------------------------------------------------

    def variable(self, name: str) -> Variable:
        """Errors: `UnknownVariable`."""
        return self._dataflow.variable(name)

    def producer(self, name: str) -> CallId | None:
        """`GetProducer`; `None` for a variable that is set from outside. Errors: `UnknownVariable`."""
        return self._dataflow.graph.producer(name)

    def consumers(self, name: str) -> tuple[CallId, ...]:
        """`GetConsumers`. Errors: `UnknownVariable`."""
        return self._dataflow.graph.consumers(name)

    def prefix_hashes(self, call: CallId) -> tuple[str, ...]:
        """`PrefixHash` before each input of the call's prompt, and of the whole; a text that is known counts."""
        self.task(call)
        return self._dataflow.graph.prefix_hashes(call, lambda name: self.variable(name).identity)

    def declare(self, name: str) -> Variable:
        """A variable that calls may read before anything writes it: `set` does later, or a call's output.
        Errors: `SessionFull`."""
        self._must_be_open()
        return self._given.declare(name)

    def set(self, name: str, text: str) -> Variable:
        """Write a variable from outside. Errors, and then nothing was made: `AlreadySettled`, also where a call will
        write it, `SessionFull`."""
        self._must_be_open()
        return self._given.set(name, text)

    def fail(self, name: str, cause: ParrotError) -> Variable:
        """The variable will never come: calls that read it fail. Errors: as `set`."""
        self._must_be_open()
        return self._given.fail(name, cause)

    @contextmanager
    def expecting(self, name: str, objective: ObjectiveKind | None = None) -> Iterator[Variable]:
        """The variable is awaited within the block: what it takes is quick at that. Reading a task is no await.
        `objective`: what the await is for, where not this very answer's latency. Errors: `UnknownVariable`."""
        variable = self.variable(name)
        deduction = self._intake.deduction
        self._intake.deduced(deduction.begin_await(name, objective))
        try:
            yield variable
        finally:
            if not self.is_closed:
                self._intake.deduced(deduction.end_await(name, objective))

    @contextmanager
    def awaiting(self, name: str, objective: ObjectiveKind | None = None) -> Iterator[Variable]:
        """As `expecting`, by an open request: that is a sign of life too."""
        with self.expecting(name, objective) as variable, self.life.held():
            yield variable

    async def read(
        self, name: str, timeout_s: float | None = None, objective: ObjectiveKind | None = None
    ) -> str | None:
        """The variable's text; `None` where it has none after `timeout_s`. Errors: that of the variable."""
        with self.awaiting(name, objective) as variable:
            if timeout_s is None or variable.is_settled:
                return await variable.get()
            patience = asyncio.ensure_future(self._machinery.fleet.clock.sleep(timeout_s))
            text = asyncio.ensure_future(variable.get())
            try:
                await asyncio.wait((text, patience), return_when=asyncio.FIRST_COMPLETED)
                return text.result() if text.done() else None
            finally:
                text.cancel()
                patience.cancel()

    async def stream(self, name: str, objective: ObjectiveKind | None = None) -> AsyncIterator[str]:
        """The variable's text as it comes; a late reader gets all of it. Errors: that of the variable."""
        with self.awaiting(name, objective) as variable:
            async for chunk in variable.stream():
                yield chunk

    # ---- life and end ----------------------------------------------------------------------------------

    def at_close(self, listener: Callable[[], object]) -> Callable[[], None]:
        """`listener` is called before a close ends anything. Returns the function that takes this back."""
        self._at_close[listener] = None
        return lambda: self._at_close.pop(listener, None)

    def cancel(self, cause: ParrotError | None = None) -> None:
        """End every call that is not over. The session stays open."""
        self._dataflow.cancel(cause or Cancelled(f"session {self.id!r} was cancelled"))

    async def close(self) -> None:
        """End every call that is not over, wait until the engines have let go of them, and forget everything."""
        if self.is_closed:
            return
        for listener in tuple(self._at_close):
            listener()
        self.is_closed = True
        work = [task.work for task in self.tasks() if task.work is not None]
        self._dataflow.close(Cancelled(f"session {self.id!r} was closed"))
        self.kept.end()
        if self._expiry is not None and self._expiry is not asyncio.current_task():
            self._expiry.cancel()
        self._on_close(self)
        if work:
            await asyncio.wait(work)

    def expire_after(self, ttl_s: float) -> None:
        """Close by itself, `ttl_s` after the last sign of life: an open request, or a call that can run or runs."""
        assert self._expiry is None
        self._expiry = self._machinery.background.spawn(self._expire(ttl_s), f"expiry of session {self.id}")

    def describe(self) -> dict[str, Any]:
        """Its calls and variables as plain values, for people and for the wire."""
        return self.description().whole()

    def description(self) -> Description:
        return Description(self.id, self.name, self._dataflow.tasks, self._dataflow.variables, self._dataflow.graph)

    def check(self) -> None:
        self._intake.check()

    # ---- inside ----------------------------------------------------------------------------------------

    def _must_be_open(self) -> None:
        if self.is_closed:
            raise UnknownSession(f"session {self.id!r} is closed")

    async def _expire(self, ttl_s: float) -> None:
        await self.life.outlive(ttl_s)
        await self.close()
