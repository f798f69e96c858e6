"""The spans that are open in this process, as LlamaIndex's instrumentation tells of them: what runs, in what, and how.

It knows spans and nothing of plans. The invariant: a span that has ended is not kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.instrumentation.span import active_span_id

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

    @property
    def root(self) -> Span:
        *_, root = self.around
        return root


class Spans:
    """Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Span] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, id: str, parent_id: str | None, instance: Any, arguments: Mapping[str, Any]) -> Span:
        span = Span(id, self.get(parent_id), instance, arguments)
        with self._lock:
            self._open[id] = span
            if len(self._open) > SPANS_KEPT:  # ends that never came: a future that nobody finished
                self._open.popitem(last=False)
        return span

    def end(self, id: str) -> Span | None:
        with self._lock:
            return self._open.pop(id, None)

    def get(self, id: str | None) -> Span | None:
        return self._open.get(id) if id is not None else None

    def current(self) -> Span | None:
        """The span that this code runs in."""
        return self.get(active_span_id.get())
