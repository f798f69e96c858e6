"""The planner: sees an app's runs begin, sends what they will ask ahead of them, and answers them with it.

The hook is LangChain's own (`register_configure_hook`): the planner is one more callback handler of every run.
When a run begins it finds what runs and with what, evaluates that symbolically (`walk`), and sends the calls it
finds as one plan; after an opaque step it begins again with the step's real output. The app then runs as it
always does, and each call of its models says here what it is about to ask.

The invariant: whatever goes wrong in here, the app does not notice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.base import RunManagerMixin
from langchain_core.outputs import LLMResult
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableSequence
from langchain_core.tracers.context import register_configure_hook

from parrot_compat.integrations.plans.asked import ALONE, Asked
from parrot_compat.integrations.plans.book import PlanBook
from parrot_compat.integrations.plans.drafting import PlanTooLarge
from parrot_compat.integrations.plans.matching import asked_softly, first_match
from parrot_compat.integrations.plans.sessions import RunSession, labelled
from parrot_compat.integrations.plans.switches import is_on
from parrot_compat.integrations.remote import Endpoint

from .announce import Announced, announcement, wrap_batches
from .graph_runs import GraphCalls, fans_out
from .groups import narrower
from .invocations import Invocation, decided_in, invocation_of, known, step_number, unbound
from .kinds import kind_of
from .plans import RunPlan
from .provenance import Formatted, hints_of, stage_of_group
from .runs import Run, Runs, surrounding_run
from .soft import softly
from .switches import is_switched_off
from .values import UNKNOWN, is_known
from .walk import Walk

__all__ = ["HELD_ON", "Planner", "listen", "planner", "records", "stats"]

HELD_ON = "1.8.1"
"""The latest langchain-core whose frames, tags and run order the canary test has met."""

log = logging.getLogger(__name__)

_model_run: ContextVar[_ModelRun | None] = ContextVar("parrot_model_run", default=None)


class _ModelRun(NamedTuple):
    """A call of a model, as its callback told of it."""

    run_id: UUID
    parent_run_id: UUID | None
    metadata: Mapping[str, Any]


class Planner(BaseCallbackHandler):
    """The handler. There is one per process."""

    run_inline = True  # in the run's own task: its context and its frames are what is looked at
    ignore_retriever = True
    ignore_retry = True
    ignore_custom_event = True

    def __init__(self) -> None:
        self.book = PlanBook()
        self._runs = Runs()
        self._in_graphs = GraphCalls()

    @property
    def ignore_llm(self) -> bool:
        """Ends of models are heard where graphs run; elsewhere every token would be told for nothing."""
        return not len(self._in_graphs)

    def __reduce__(self) -> str:
        return "planner"  # copies and pickles of a config hold the process's own

    # ---- what the callbacks tell -----------------------------------------------------------------

    @softly
    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not is_on(compiled=True):
            return
        name = kwargs.get("name") or ""
        parent = self._runs.get(parent_run_id) or self._runs.get(surrounding_run())
        roots = announcement()
        # Inside of a root an input may come again that another root will begin with.
        is_inside = parent is not None and parent.announced is roots
        if roots is not None and not is_inside and roots.begin(inputs):
            run = Run(run_id, parent, unbound(roots.runnable), roots.streamed, roots.compiled, roots.session)
            run.begins(roots, step_number(tags))
            self._runs.begin(run)
            if is_switched_off(metadata):
                roots.leave()
            elif not any(item is UNKNOWN for item in roots.inputs):
                self._plan_roots(run, roots, name)
            elif is_on(compiled=run.is_compiled):
                self._plan_run(run, Invocation(run.runnable, known(inputs), roots.arguments), tags or (), name)
            return
        invocation = invocation_of(parent, inputs, tags)
        run = Run(run_id, parent, invocation.runnable, invocation.streamed)
        run.width = invocation.width or run.width
        run.step = step_number(tags)
        run.is_fanned_out = run.is_fanned_out or fans_out(metadata)
        run.inputs = inputs if kwargs.get("run_type") == "prompt" else None
        self._runs.begin(run)
        if is_on(compiled=run.is_compiled) and not is_switched_off(metadata):
            self._plan_run(run, invocation, tags or (), name)

    @softly
    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        parent = self._runs.get(parent_run_id) or self._runs.get(surrounding_run())
        # `stream()` does not tell `_stream` which run it is, and in which: it is read from here.
        _model_run.set(_ModelRun(run_id, parent.id if parent is not None else None, metadata or {}))
        if parent is not None and self._in_graphs.begin(
            run_id, metadata, parent.graph_run, is_fanned_out=parent.is_fanned_out
        ):
            parent.models.append(run_id)
        if parent is None or len(messages) != 1 or is_switched_off(metadata):
            return
        self._resume(parent, messages[0], tags or (), kwargs.get("name") or "")

    @softly
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.get(run_id)
        if run is not None and run.parent is not None and isinstance(outputs, PromptValue):
            # Where no plan answers, the server is told which of the prompt's text are values.
            run.parent.formatted = Formatted(run.runnable, run.inputs, outputs)
        self._end(run_id, failed=False)

    @softly
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, failed=True)

    @softly
    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Nothing is planned of a tool. What runs in it is part of the run that it is in; of one that is in none, and
        says nothing when it is cancelled, each is a run of its own."""
        parent = self._runs.get(parent_run_id) or self._runs.get(surrounding_run())
        if parent is not None and is_on(compiled=True):
            self._runs.begin(Run(run_id, parent, None))
            parent.tools.append(run_id)

    @softly
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, failed=False)

    @softly
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, failed=True)

    @softly
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self._in_graphs.end(run_id, response)

    @softly
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._in_graphs.end(run_id)

    def _end(self, run_id: UUID, *, failed: bool) -> None:
        if (run := self._runs.end(run_id)) is None:
            return
        if run.parent is not None and not failed:  # a node may leave a call going on for another
            run.parent.models += run.models
        else:
            self._in_graphs.end_all(run.models)
        for plan in run.plans:
            plan.run_ended(failed=failed)

    # ---- planning --------------------------------------------------------------------------------

    def _plan_roots(self, run: Run, roots: Announced, name: str) -> None:
        """All roots of one announcement make one plan, when the first of them begins."""
        if any(plan.covers(run.runnable) for plan in run.plans_around()):
            return
        with roots.lock:
            if not roots.is_planned and is_on(compiled=run.is_compiled):
                walk = Walk(self.book.is_refused)
                walks = [partial(walk.walk, roots.runnable, item, roots.arguments) for item in roots.inputs]
                roots.take(self._sent(walk, walks, name, run))
            roots.is_planned = True
        if roots.plan is not None:
            run.plans.append(roots.plan)

    def _plan_run(self, run: Run, invocation: Invocation, tags: Sequence[str], name: str) -> None:
        if run.parent is not None and self._resume(run.parent, invocation.input, tags, name):
            return
        if invocation.runnable is None or invocation.input is UNKNOWN or run.is_in_narrow_batch:
            return
        again = any(tag.startswith("retry:attempt:") for tag in tags)
        if not again and any(plan.covers(invocation.runnable) for plan in run.plans_around()):
            return
        walk = Walk(self.book.is_refused)
        steps = partial(walk.walk, invocation.runnable, invocation.input, invocation.arguments)
        if (around := decided_in(run, tags)) is not None:
            # What comes after the decision is known now: the branch, and the steps behind it.
            sequence, number = around
            steps_behind = partial(walk.sequence_from, sequence.runnable, number)
            sequence.plans.append(self._sent(walk, [lambda: steps_behind(steps())], name, sequence))
            return
        run.plans.append(self._sent(walk, [steps], name, run))

    def _resume(self, parent: Run, value: Any, tags: Sequence[str], name: str) -> bool:
        """A step of a sequence begins that no symbolic run has come to: plan the rest from the step's real input."""
        number = step_number(tags)
        sequence = parent.runnable
        if number is None or value is UNKNOWN or kind_of(sequence) is not RunnableSequence:
            return False
        if parent.is_in_narrow_batch or not is_on(compiled=parent.is_compiled):  # the step alone may be compiled
            return False
        if any(plan.covers(sequence, number) for plan in parent.plans_around()):
            return False
        walk = Walk(self.book.is_refused)
        walks = [partial(walk.sequence_from, sequence, number, value)]
        parent.plans.append(self._sent(walk, walks, name, parent))
        return True

    def _sent(self, walk: Walk, walks: Sequence[Callable[[], Any]], name: str, run: Run) -> RunPlan:
        plan = RunPlan(self.book, name, walk, users=len(walks))
        try:
            values = [walks[0]()] if len(walks) == 1 else walk.group(walks)
        except PlanTooLarge as reason:
            log.debug("%s is not planned: %s", name, reason)
            return plan
        # A chain that is seen to its end is a session by itself; elsewhere more may come.
        if len(walk.drafts) > 1 and (run.parent is not None or not all(map(is_known, values))):
            run.session.is_of_many = True
        session, width = labelled(run.session), narrower(run.width, walk.width)
        around = session if session.is_of_many else None
        plan.send(walk.drafts, streamed=run.is_streamed, width=width, session=around)
        return plan

    # ---- answering -------------------------------------------------------------------------------

    def asked(self, endpoint: Endpoint, request: Mapping[str, Any], run_manager: RunManagerMixin | None) -> Asked:
        """The planned call that this request of a model is, and what is known of it. Never raises, never blocks."""
        return asked_softly(self.book, lambda: self._asked(endpoint, request, run_manager))

    def _asked(self, endpoint: Endpoint, request: Mapping[str, Any], run_manager: Any) -> Asked:
        model_run: Any = _model_run.get() if run_manager is None else run_manager
        run_id = model_run.run_id if model_run is not None else None
        parent_id = model_run.parent_run_id if model_run is not None else None
        run = self._runs.get(parent_id) or self._runs.get(surrounding_run())
        session = labelled(run.session if run is not None else RunSession())
        if run is None:
            is_told = session.is_of_many or stage_of_group.get() is not None
            return Asked(None, lambda: session.hints(endpoint) | hints_of((), ()), session) if is_told else ALONE
        found = first_match(run.plans_around(), endpoint, request)
        if found is None:
            session.count()
        elif run_id is not None:
            found.plan.takers[found.call] = run_id

        def hints() -> Mapping[str, Any]:
            told = session.hints(endpoint) | self._in_graphs.hints(model_run, request["messages"])
            # What a template tells is closer to the call than what its node does.
            return told | hints_of(run.formatted_around(), request["messages"])

        return Asked(found, hints, session)


planner = Planner()
register_configure_hook(ContextVar("parrot_planner", default=planner), inheritable=True)
wrap_batches()

# The process's own planner is what an app asks: how often has it helped, and how did the last plans go?
stats = planner.book.stats
records = planner.book.records
listen = planner.book.listen
