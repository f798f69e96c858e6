"""The runs of the apps in this process, as callbacks tell of them: which runnable (`invocations`), under which run.

It knows nothing of plans. The invariant: a run that has ended is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables.config import var_child_runnable_config

from parrot_compat.integrations.plans.sessions import RunSession
from parrot_compat.integrations.process_lock import ProcessLock

from .graph_runs import GraphRun

if TYPE_CHECKING:
    from .announce import Announced
    from .plans import RunPlan
    from .provenance import Formatted

__all__ = ["Run", "Runs", "surrounding_run"]

RUNS_KEPT = 50_000

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
        "is_in_narrow_batch",
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
        self.is_in_narrow_batch: bool = parent is not None and parent.is_in_narrow_batch
        """A plan of its own would run beside those of the others, and only one plan knows how many calls may."""
        self.step: int | None = None
        """Which step of its parent's sequence it is."""
        self.announced: Announced | None = parent.announced if parent is not None else None
        """The announcement that it, or what it is in, was begun by."""
        self.plans: list[RunPlan] = []
        self.inputs: Any = None
        """Of prompts only."""
        self.formatted: Formatted | None = None
        """The prompt that was formatted last, directly under this run."""
        self.tools: list[UUID] = []
        self.models: list[UUID] = []  # in nodes of graphs; like tools they tell of no end where they are cancelled

    def begins(self, roots: Announced, step: int | None) -> None:
        """It is one of these."""
        self.announced, self.width, self.step = roots, roots.width or self.width, step
        self.is_in_narrow_batch |= self.width is not None and len(roots.inputs) > 1

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
            if run is not None:
                self._end_tools(run)
        if run is not None and run.parent is None:
            run.session.end()
        return run

    def _end_tools(self, run: Run) -> None:
        """One that is cancelled tells of no end, nor does what it had begun."""
        for tool in run.tools:
            if (gone := self._runs.pop(tool, None)) is not None:
                self._end_tools(gone)
                run.models += gone.models


def surrounding_run() -> UUID | None:
    """The run that this code is in, whatever the run's own config says. (A chain that is given callbacks of its
    own begins a trace of its own, but it still runs where it is called.)"""
    config = var_child_runnable_config.get() or {}
    callbacks = config.get("callbacks")
    return callbacks.parent_run_id if isinstance(callbacks, BaseCallbackManager) else None
