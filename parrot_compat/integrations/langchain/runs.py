"""The runs of the apps in this process, as callbacks tell of them: which runnable, under which run.

A callback says a run's id, its parent's and its tags, but not what runs. That is found in the parent (its
steps have numbers and keys) or, where the parent is someone's own code, in the calling frames: read only, and
only for the names `self`, `input`, `config` and `kwargs`.

It knows runnables and frames and nothing of plans. The invariant: a run that has ended is not kept.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableBranch, RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBinding, RunnableBindingBase, RunnableEach
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.passthrough import RunnableAssign
from langchain_core.runnables.retry import RunnableRetry

from parrot_compat.integrations.plans.sessions import RunSession
from parrot_compat.integrations.plans.switches import is_on
from parrot_compat.integrations.process_lock import ProcessLock

from .graph_runs import GraphRun
from .groups import width_of
from .kinds import kind_of
from .values import UNKNOWN

if TYPE_CHECKING:
    from .plans import RunPlan
    from .provenance import Formatted

__all__ = [
    "Invocation",
    "Run",
    "Runs",
    "calling_frames",
    "child_of",
    "decided_in",
    "invocation_of",
    "step_number",
    "surrounding_run",
    "unbound",
]

FRAMES_SEARCHED = 30
RUNS_KEPT = 50_000
STREAMED_INPUT = {"input": ""}
STREAMS = ("_transform_stream_with_config", "_atransform_stream_with_config")

_graphs = ProcessLock()


class Run:
    """A run that has begun and not ended. `plans` are those that were made when it began, or at one of its steps."""

    __slots__ = (
        "announced",
        "formatted",
        "graph",
        "id",
        "inputs",
        "is_compiled",
        "is_fanned_out",
        "is_streamed",
        "models",
        "parent",
        "plans",
        "runnable",
        "session",
        "step",
        "tools",
        "width",
    )

    def __init__(
        self,
        id: UUID,
        parent: Run | None,
        runnable: Any,
        is_streamed: bool = False,
        is_compiled: bool = False,
        session: RunSession | None = None,
    ) -> None:
        self.id = id
        self.parent = parent
        self.runnable = runnable
        self.is_streamed: bool = is_streamed or (parent is not None and parent.is_streamed)
        self.is_compiled: bool = is_compiled or (parent is not None and parent.is_compiled)
        self.width: int | None = parent.width if parent is not None else None  # of calls at once, where the app says it
        self.session: RunSession = parent.session if parent is not None else session or RunSession()
        """Of the outermost run, with all that it is in."""
        self.graph: GraphRun | None = parent.graph if parent is not None else None
        self.is_fanned_out: bool = parent is not None and parent.is_fanned_out
        """It is in one of many copies of a graph's node."""
        self.step: int | None = None
        """Which step of its parent's sequence it is."""
        self.announced: object = parent.announced if parent is not None else None
        """The announcement that it, or what it is in, was begun by."""
        self.plans: list[RunPlan] = []
        self.inputs: Any = None
        """Of prompts only."""
        self.formatted: Formatted | None = None
        """The prompt that was formatted last, directly under this run."""
        self.tools: list[UUID] = []
        self.models: list[UUID] = []  # in nodes of graphs; like tools they tell of no end where they are cancelled

    def graph_run(self) -> GraphRun:
        """The graph's run that this is part of; it is known by its outermost run."""
        run = self
        while run.graph is None and run.parent is not None:
            run = run.parent
        with _graphs:  # the nodes of one step begin side by side
            if run.graph is None:
                run.graph = GraphRun(run.session)
        self.graph = run.graph
        return run.graph

    def formatted_around(self) -> list[Formatted]:
        """The latest prompts of this run and of those it is in, inside out."""
        found, run = [], self
        while True:
            if run.formatted is not None:
                found.append(run.formatted)
            if run.parent is None:
                return found
            run = run.parent

    def plans_around(self) -> Iterator[RunPlan]:
        """The plans of this run and of those it is in, inside out."""
        run: Run | None = self
        while run is not None:
            yield from run.plans
            run = run.parent


class Runs:
    """The runs that have begun and not ended. Threads share it."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._runs: OrderedDict[UUID, Run] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run_id: UUID | None) -> Run | None:
        return self._runs.get(run_id) if run_id is not None else None

    def begin(self, run: Run) -> None:
        with self._lock:
            self._runs[run.id] = run
            if run.parent is None:
                run.session.begin()
            if len(self._runs) > RUNS_KEPT:  # ends that never came: a handler of someone's raised
                self._runs.popitem(last=False)

    def end(self, run_id: UUID) -> Run | None:
        with self._lock:
            run = self._runs.pop(run_id, None)
            for tool in run.tools if run is not None else ():
                self._runs.pop(tool, None)  # one that is cancelled tells of no end
        if run is not None and run.parent is None:
            run.session.end()
        return run


def surrounding_run() -> UUID | None:
    """The run that this code is in, whatever the run's own config says. (A chain that is given callbacks of its
    own begins a trace of its own, but it still runs where it is called.)"""
    config = var_child_runnable_config.get() or {}
    callbacks = config.get("callbacks")
    return callbacks.parent_run_id if isinstance(callbacks, BaseCallbackManager) else None


# ---- what runs -----------------------------------------------------------------------------------


def step_number(tags: Sequence[str] | None) -> int | None:
    """Which step of its sequence a run is, from 0."""
    for tag in tags or ():
        if tag.startswith("seq:step:"):
            return int(tag.removeprefix("seq:step:")) - 1
    return None


def unbound(runnable: Any) -> Any:
    """What begins a run when this is called; bindings begin none. `None` if that is decided when it is called."""
    while True:
        kind = kind_of(runnable)
        if kind is RunnableBinding or getattr(type(runnable), "__parrot_compiled__", False):
            runnable = runnable.bound
            continue
        late = isinstance(runnable, DynamicRunnable | RunnableBindingBase) and kind is not RunnableRetry
        return None if late else runnable


def child_of(parent: Any, tags: Sequence[str] | None) -> Any:
    """The runnable of a run inside `parent`'s run, if its kind of parent says so."""
    kind = kind_of(parent)
    if kind is RunnableSequence:
        number = step_number(tags)
        return unbound(parent.steps[number]) if number is not None and number < len(parent.steps) else None
    if kind is RunnableParallel:
        keys = [tag.removeprefix("map:key:") for tag in tags or () if tag.startswith("map:key:")]
        return unbound(parent.steps__.get(keys[0])) if keys else None
    if kind is RunnableAssign:
        return unbound(parent.mapper)
    if kind in (RunnableEach, RunnableRetry):
        return unbound(parent.bound)
    if kind is RunnableBranch:
        return unbound(_branch_of(parent, tags or ()))
    return None


def _branch_of(branch: Any, tags: Sequence[str]) -> Any:
    for tag in tags:
        if tag == "branch:default":
            return branch.default
        for kind, place in (("condition:", 0), ("branch:", 1)):
            if tag.startswith(kind):
                return branch.branches[int(tag.removeprefix(kind)) - 1][place]
    return None


def decided_in(run: Run, tags: Sequence[str]) -> tuple[Run, int] | None:
    """Where this is the branch that a step of a sequence decided for: that sequence, and the step behind."""
    decision = run.parent
    sequence = decision.parent if decision is not None else None
    if decision is None or sequence is None or decision.step is None:
        return None
    is_branch = kind_of(decision.runnable) is RunnableBranch and any(tag.startswith("branch:") for tag in tags)
    return (sequence, decision.step + 1) if is_branch and kind_of(sequence.runnable) is RunnableSequence else None


@dataclass(frozen=True, slots=True)
class Invocation:
    """What is being called, with what: as much of it as could be found."""

    runnable: Runnable[Any, Any] | None
    input: Any = UNKNOWN
    arguments: Mapping[str, Any] = field(default_factory=dict)
    streamed: bool = False
    width: int | None = None


def invocation_of(parent: Run | None, inputs: Any, tags: Sequence[str] | None) -> Invocation:
    """The invocation that begins a run in `parent`, or one that nothing is known to be around."""
    runnable = child_of(parent.runnable, tags) if parent is not None else None
    if runnable is not None:
        return Invocation(runnable, UNKNOWN if inputs == STREAMED_INPUT else inputs)
    # Only compiled chains are planned where frames are not to be looked at.
    return calling_frames(inputs) if is_on() else Invocation(None)


def calling_frames(inputs: Any) -> Invocation:
    """The invocation that begins a run, from the frames of the callback that tells of it."""
    found: Any = None
    streamed = False
    value = UNKNOWN if inputs == STREAMED_INPUT else inputs
    arguments: Mapping[str, Any] = {}
    width: int | None = None
    frame: FrameType | None = sys._getframe(2)
    for _ in range(FRAMES_SEARCHED):
        if frame is None:
            break
        owner = _self_of(frame)
        if found is None and isinstance(owner, Runnable):
            found = owner
            streamed = frame.f_code.co_name in STREAMS
            value = UNKNOWN if streamed else inputs
        if found is not None:
            if owner is not found:
                if owner is not None:
                    break  # whoever calls it
            else:
                local = frame.f_locals
                arguments = local.get("kwargs") or arguments
                width = width_of(local.get("config")) or width
                if streamed and frame.f_code.co_name in ("stream", "astream"):
                    value = local.get("input", UNKNOWN)
                    break
        frame = frame.f_back
    return Invocation(found, value, arguments, streamed, width)


def _self_of(frame: FrameType) -> Any:
    code = frame.f_code
    if not code.co_argcount or code.co_varnames[0] != "self":
        return None
    return frame.f_locals.get("self")
