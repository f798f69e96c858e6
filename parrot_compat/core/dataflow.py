"""The dataflow of a session: its variables, its tasks, and the way of texts and failures from one to the other.

It knows nothing of prompts as tokens, of queues or of engines: it says which task has its inputs.

The invariants: a task is told once that its inputs are there, or fails as soon as one of them has failed; nothing waits
for something that has died; one failure may end many tasks, however deep the graph, without recursion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from .call import Call, CallId, VariableName
from .errors import AlreadySettled, Cancelled, ParrotError, PromptTooLong, UnknownVariable, UpstreamFailed
from .graph import Graph
from .prompt import Bound, Content
from .task import Task
from .task_state import TaskState
from .variable import Variable

__all__ = ["Dataflow"]

MAX_CHARACTERS = 2**25
"""Of a prompt with the values of its inputs, each as often as it is read: as many as the body of a request has bytes.
Beyond every context, and looked at before any text is put together: a value of megabytes is named in some bytes."""


class Dataflow:
    def __init__(self, on_inputs: Callable[[Task], None]) -> None:
        self.graph = Graph()
        self.tasks: dict[CallId, Task] = {}
        self.variables: dict[str, Variable] = {}
        self._on_inputs = on_inputs
        self._over: deque[Task] = deque()  # ended tasks whose consumers have not been told yet
        self._is_telling = False

    # ---- questions -----------------------------------------------------------------------------------

    def variable(self, name: str) -> Variable:
        """Errors: `UnknownVariable`."""
        if name not in self.variables:
            raise UnknownVariable(f"no variable {name!r} in this session")
        return self.variables[name]

    def has_inputs(self, call: Call) -> bool:
        variables = (self.variables.get(name) for name in call.prompt.inputs())
        return all(variable is not None and variable.is_settled and variable.failure is None for variable in variables)

    def must_be_free(self, name: str) -> None:
        """It may be written from outside. Errors: `AlreadySettled`, also where a call will write it."""
        if (variable := self.variables.get(name)) is None:
            return
        if (producer := self.graph.producer(name)) is not None:
            raise AlreadySettled(f"variable {name!r} is the output of call {producer!r}")
        if variable.is_settled:
            raise AlreadySettled(f"variable {name!r} is already settled")

    def bound(self, call: Call) -> Bound:
        """What a call with its inputs is made of. Errors: `PromptTooLong`."""
        bound = Bound(call.prompt, {name: self.variables[name].text_so_far for name in call.prompt.inputs()})
        if (characters := bound.characters) > MAX_CHARACTERS:
            read = f"{characters} characters of at most {MAX_CHARACTERS}"
            raise PromptTooLong(f"prompt is too long: call {call.id!r} reads {read}")
        return bound

    def content(self, call: Call) -> Content:
        """What it says. Errors: `PromptTooLong`, `TransformFailed`."""
        return self.bound(call).content()

    def is_all(self, calls: Sequence[Call]) -> bool:
        """True where they are the choices of one request, and the session has been asked for nothing else."""
        alone = len(self.graph) == len(calls)
        return alone and all(call.stage is None and call.prompt == calls[0].prompt for call in calls)

    def is_read(self, call: Call) -> bool:
        """True where a task that is not over reads what the call makes."""
        return any(not self.tasks[reader].is_over for reader in self.graph.consumers(call.output))

    def spent_s(self, call: CallId, now_s: float) -> float:
        """How long it has been running. What an engine had done that was lost is lost."""
        task = self.tasks[call]
        return now_s - task.started_s if task.state is TaskState.RUNNING and task.started_s is not None else 0.0

    def check(self) -> None:
        self.graph.check()
        assert not self._over and not self._is_telling
        for task in self.tasks.values():
            task.check()
            assert self.variables[task.call.output] is task.output
            missing = self.graph.missing(task.call.id)
            assert not (missing and task.state in (TaskState.READY, TaskState.RUNNING, TaskState.FINISHED))
            for name in task.call.prompt.inputs():
                assert task.is_over or self.variables[name].failure is None

    # ---- changes ---------------------------------------------------------------------------------------

    def output(self, name: str) -> Variable:
        """The variable of that name, made where it is new."""
        variable = self.variables.get(name)
        if variable is None:
            variable = self.variables[name] = Variable(VariableName(name))
        return variable

    def declare(self, name: str) -> Variable:
        self.graph.declare(name)
        return self.output(name)

    def set(self, name: str, text: str) -> Variable:
        """Errors: `AlreadySettled`, also where a call will write it."""
        variable = self._free(name)
        variable.set(text)
        self._settled(name)
        return variable

    def fail(self, name: str, cause: ParrotError) -> Variable:
        """Errors: as `set`."""
        variable = self._free(name)
        variable.fail(cause)
        self.graph.end(name)
        self._fail_consumers(name, cause)
        return variable

    def begin(self, task: Task) -> None:
        """A task that was accepted: told at once of inputs that are there, or have failed."""
        for name in task.call.prompt.inputs():
            if (cause := self.variables[name].failure) is not None:
                task.fail(UpstreamFailed(name, _root(cause)))
                return
        if not self.graph.missing(task.call.id):
            self._on_inputs(task)

    def ended(self, task: Task) -> None:
        """Tell those who wait for the task's output."""
        self._over.append(task)
        if not self._is_telling:
            self._tell_ended()

    def cancel(self, cause: ParrotError) -> None:
        """End every task that is not over, all for this cause, not each because of the one before."""
        told, self._is_telling = self._is_telling, True
        for task in self.tasks.values():
            task.cancel(cause)
        self._is_telling = told
        if not told:
            self._tell_ended()

    def close(self, cause: Cancelled) -> None:
        """As `cancel`; then variables that nobody will write fail, and everything is forgotten."""
        self.cancel(cause)
        for variable in self.variables.values():
            variable.fail(cause)
        self.graph = Graph()
        self.variables.clear()
        self.tasks.clear()

    # ---- inside ----------------------------------------------------------------------------------------

    def _free(self, name: str) -> Variable:
        """A variable that may be written from outside, made where it is new."""
        self.must_be_free(name)
        return self.declare(name)

    def _settled(self, name: str) -> None:
        for call in self.graph.settle(name):
            if not (task := self.tasks[call]).is_over:
                self._on_inputs(task)

    def _fail_consumers(self, name: str, cause: ParrotError) -> None:
        for consumer in self.graph.consumers(name):
            self.tasks[consumer].fail(UpstreamFailed(name, _root(cause)))

    def _tell_ended(self) -> None:
        self._is_telling = True
        try:
            while self._over:
                task = self._over.popleft()
                if task.failure is None:
                    self._settled(task.call.output)
                else:
                    self._fail_consumers(task.call.output, task.failure)
        finally:
            self._is_telling = False


def _root(cause: ParrotError) -> ParrotError:
    """What went wrong in the first place: a chain of a thousand calls must not nest its errors a thousand deep."""
    return cause.cause if isinstance(cause, UpstreamFailed) else cause
