"""The spans that are open in this process, as LlamaIndex's instrumentation tells of them: what runs, in what, and how.

It knows spans and nothing of plans. The invariant: a span that has ended is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation.span import active_span_id

from parrot_compat.integrations.plans.sessions import RunSession
from parrot_compat.integrations.process_lock import ProcessLock

if TYPE_CHECKING:
    from .run_plan import RunPlan

__all__ = ["Span", "Spans"]

SPANS_KEPT = 50_000


@dataclass(slots=True, eq=False)
class Span:
    id: str
    parent: Span | None
    instance: Any
    arguments: Mapping[str, Any]
    session: RunSession
    """Of the outermost span, with all that it is in."""
    plan: RunPlan | None = None
    """What was sent ahead when it began."""

    @property
    def method(self) -> str:
        return self.id.partition(".")[2].partition("-")[0]

    @property
    def around(self) -> Iterator[Span]:
        """It and those it is in, inside out."""
        span: Span | None = self
        while span is not None:
            yield span
            span = span.parent


class Spans:
    """Threads share it."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._open: OrderedDict[str, Span] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, id: str, parent_id: str | None, instance: Any, arguments: Mapping[str, Any]) -> Span:
        parent = self.get(parent_id)
        span = Span(id, parent, instance, arguments, RunSession() if parent is None else parent.session)
        if parent is None:
            # What an app does with a model alone is one call, and a session without being told.
            span.session.is_of_many = not isinstance(instance, BaseLLM)
            span.session.begin()
        with self._lock:
            self._open[id] = span
            if len(self._open) > SPANS_KEPT:  # ends that never came: a future that nobody finished
                self._open.popitem(last=False)
        return span

    def end(self, id: str) -> Span | None:
        with self._lock:
            span = self._open.pop(id, None)
        if span is not None and span.parent is None:
            span.session.end()
        return span

    def get(self, id: str | None) -> Span | None:
        return self._open.get(id) if id is not None else None

    def current(self) -> Span | None:
        """The span that this code runs in."""
        return self.get(active_span_id.get())
