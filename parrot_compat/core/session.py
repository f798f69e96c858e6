"""A session: one run of an app, its graph of calls and its variables.

It knows nothing of engines or placement: a call whose inputs are all there is rendered and handed to the scheduler.

The invariants: a call runs when its last input has its text, and fails as soon as one of them has failed; nothing
waits for something that has died; when a session closes everything under it has ended and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .admission import Admission
from .background import Background
from .call import Call, CallId, VariableName
from .errors import AlreadySettled, CallerError, Cancelled, ParrotError, UnknownSession, UnknownVariable, UpstreamFailed
from .fleet import Fleet
from .graph import Graph
from .prompt import Content
from .rendering import Rendered, Renderer
from .scheduler import Scheduler
from .task import Flow, Task, TaskState
from .variable import Variable

__all__ = ["Machinery", "Session"]

_SEEDS = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """The parts of the manager that sessions work with."""

    fleet: Fleet
    renderer: Renderer
    scheduler: Scheduler
    admission: Admission
    background: Background


class Session:
    """Made by `Manager.open_session`."""

    def __init__(
        self, id: str, *, flow: Flow, name: str | None, machinery: Machinery, on_close: Callable[[Session], None]
    ) -> None:
        self.id = id
        self.name = name
        self.flow = flow
        self.tenant = flow.tenant
        self.is_closed = False
        self._machinery = machinery
        self._on_close = on_close
        self._graph = Graph()
        self._variables: dict[str, Variable] = {}
        self._tasks: dict[CallId, Task] = {}
        self._over: deque[Task] = deque()  # ended tasks whose consumers have not been told yet
        self._is_telling = False

    # ---- calls -----------------------------------------------------------------------------------------

    async def submit(self, call: Call) -> Task:
        """Accept a call. It runs as soon as its inputs are there; its output is `task.output`.

        Errors, and then nothing was accepted: `BadPrompt`, `PromptTooLong`, `NoEngineForModel`, `QueueFull`,
        `TooManyCalls`, and those of `Graph.add`.
        """
        return (await self.submit_all((call,)))[0]

    async def submit_all(self, calls: Sequence[Call]) -> tuple[Task, ...]:
        """Accept all of the calls or none. They may read each other's outputs, in any order, and what belongs
        together among them (one consumer, or one prefix) is placed together. Errors: as `submit`."""
        self._must_be_open()
        admission = self._machinery.admission
        admission.admit(self.tenant, len(calls))
        try:
            models = [self._machinery.fleet.model(call.model) for call in calls]
            for call in calls:
                admission.check_name("call", call.id)
                admission.check_name("variable", call.output)
            rendered = {
                call.id: await self._machinery.renderer.render_any(self._content(call), model, self.tenant)
                for call, model in zip(calls, models, strict=True)
                if self._has_inputs(call)
            }
            self._must_be_open()  # it may have been closed while a large prompt was encoded
            self._graph.add(calls)
        except BaseException:
            admission.release(self.tenant, len(calls))
            raise
        groups = self._graph.groups([call.id for call in calls]) if len(calls) > 1 else {}
        tasks = tuple(self._accept(call, model, groups.get(call.id)) for call, model in zip(calls, models, strict=True))
        for task in tasks:
            self._begin(task, rendered.get(task.call.id))
        return tasks

    def task(self, call: CallId) -> Task:
        """Errors: `CallerError` where there is no such call."""
        if call not in self._tasks:
            raise CallerError(f"no call {call!r} in this session")
        return self._tasks[call]

    def tasks(self) -> tuple[Task, ...]:
        """Every call accepted so far, in order."""
        return tuple(self._tasks.values())

    # ---- variables -------------------------------------------------------------------------------------

    def variable(self, name: str) -> Variable:
        """Errors: `UnknownVariable`."""
        if name not in self._variables:
            raise UnknownVariable(f"no variable {name!r} in this session")
        return self._variables[name]

    def declare(self, name: str) -> Variable:
        """A variable that calls may read before anything writes it: `set` does later, or a call's output."""
        self._must_be_open()
        self._machinery.admission.check_name("variable", name)
        self._graph.declare(name)
        return self._variable(name)

    def set(self, name: str, text: str) -> Variable:
        """Write a variable from outside. Errors: `AlreadySettled`, also where a call will write it."""
        variable = self._free_variable(name)
        variable.set(text)
        self._settled(name)
        return variable

    def fail(self, name: str, cause: ParrotError) -> Variable:
        """The variable will never come: calls that read it fail. Errors: as `set`."""
        variable = self._free_variable(name)
        variable.fail(cause)
        self._fail_consumers(name, cause)
        return variable

    # ---- the end ---------------------------------------------------------------------------------------

    def cancel(self, cause: ParrotError | None = None) -> None:
        """End every call that is not over. The session stays open."""
        cause = cause or Cancelled(f"session {self.id!r} was cancelled")
        told, self._is_telling = self._is_telling, True  # all end for this cause, not each because of the one before
        for task in self._tasks.values():
            task.cancel(cause)
        self._is_telling = told
        self._tell_ended()

    async def close(self) -> None:
        """End every call that is not over, wait until the engines have let go of them, and forget everything."""
        if self.is_closed:
            return
        self.is_closed = True
        work = [task.work for task in self._tasks.values() if task.work is not None]
        cause = Cancelled(f"session {self.id!r} was closed")
        self.cancel(cause)
        for variable in self._variables.values():
            variable.fail(cause)  # declared, and now nobody will write it
        self._graph = Graph()
        self._variables.clear()
        self._tasks.clear()
        self._on_close(self)
        if work:
            await asyncio.wait(work)

    def check(self) -> None:
        self._graph.check()
        assert not self._over and not self._is_telling
        for task in self._tasks.values():
            task.check()
            assert self._variables[task.call.output] is task.output
            missing = self._graph.missing(task.call.id)
            assert not (missing and task.state in (TaskState.READY, TaskState.RUNNING, TaskState.FINISHED))
            for variable in task.call.prompt.inputs():
                assert task.is_over or self._variables[variable].failure is None

    # ---- inside: accepting and running -------------------------------------------------------------------

    def _must_be_open(self) -> None:
        if self.is_closed:
            raise UnknownSession(f"session {self.id!r} is closed")

    def _has_inputs(self, call: Call) -> bool:
        variables = (self._variables.get(name) for name in call.prompt.inputs())
        return all(variable is not None and variable.is_settled and variable.failure is None for variable in variables)

    def _content(self, call: Call) -> Content:
        return call.prompt.bind({name: self._variables[name].text_so_far for name in call.prompt.inputs()})

    def _accept(self, call: Call, model: str, group: str | None) -> Task:
        seed = call.sampling.seed if call.sampling.seed is not None else _SEEDS.getrandbits(31)
        task = self._tasks[call.id] = Task(
            call,
            model=model,
            output=self._variable(call.output),
            flow=self.flow,
            group=None if group is None else f"{self.id}/{group}",
            seed=seed,
            clock=self._machinery.fleet.clock,
            on_end=self._ended,
        )
        self._machinery.fleet.events.emit(task.submission())
        return task

    def _begin(self, task: Task, rendered: Rendered | None) -> None:
        """Start a task that has just been accepted as far as it will go."""
        if rendered is not None:
            self._put(task, rendered)
            return
        for name in task.call.prompt.inputs():
            if (cause := self._variables[name].failure) is not None:
                task.fail(UpstreamFailed(name, _root(cause)))
                return
        if not self._graph.missing(task.call.id):  # its last input came while another prompt was being encoded
            self._run(task)

    def _run(self, task: Task) -> None:
        """Render and queue a task whose inputs have just become complete."""
        content = self._content(task.call)
        if self._machinery.renderer.is_large(content):
            self._machinery.background.spawn(self._run_large(task, content), f"render {task.call.id}")
            return
        try:
            rendered = self._machinery.renderer.render(content, task.model, self.tenant)
        except ParrotError as error:
            task.fail(error)
        else:
            self._put(task, rendered)

    async def _run_large(self, task: Task, content: Content) -> None:
        try:
            rendered = await self._machinery.renderer.render_any(content, task.model, self.tenant)
        except ParrotError as error:
            task.fail(error)
        else:
            self._put(task, rendered)

    def _put(self, task: Task, rendered: Rendered) -> None:
        if not task.is_over:
            task.make_ready(rendered)
            self._machinery.scheduler.put(task)

    # ---- inside: variables, and telling those who wait for them --------------------------------------------

    def _variable(self, name: str) -> Variable:
        variable = self._variables.get(name)
        if variable is None:
            variable = self._variables[name] = Variable(VariableName(name))
        return variable

    def _free_variable(self, name: str) -> Variable:
        variable = self.declare(name)
        if (producer := self._graph.producer(name)) is not None:
            raise AlreadySettled(f"variable {name!r} is the output of call {producer!r}")
        if variable.is_settled:
            raise AlreadySettled(f"variable {name!r} is already settled")
        return variable

    def _settled(self, name: str) -> None:
        for call in self._graph.settle(name):
            if not (task := self._tasks[call]).is_over:
                self._run(task)

    def _fail_consumers(self, name: str, cause: ParrotError) -> None:
        for consumer in self._graph.consumers(name):
            self._tasks[consumer].fail(UpstreamFailed(name, _root(cause)))

    def _ended(self, task: Task) -> None:
        """A task of ours is over. One failure may end many, however deep the graph: a loop tells them, no recursion."""
        self._machinery.scheduler.forget(task)
        self._machinery.admission.release(self.tenant)
        self._machinery.fleet.events.emit(task.ending())
        self._over.append(task)
        if not self._is_telling:
            self._tell_ended()

    def _tell_ended(self) -> None:
        self._is_telling = True
        while self._over:
            task = self._over.popleft()
            if task.failure is None:
                self._settled(task.call.output)
            else:
                self._fail_consumers(task.call.output, task.failure)
        self._is_telling = False


def _root(cause: ParrotError) -> ParrotError:
    """What went wrong in the first place: a chain of a thousand calls must not nest its errors a thousand deep."""
    return cause.cause if isinstance(cause, UpstreamFailed) else cause
