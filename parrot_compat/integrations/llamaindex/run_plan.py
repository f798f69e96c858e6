"""The plan of one run of a synthesizer, from its first call until nobody wants an answer of it any more.

A streamed answer is read after the span that it belongs to has ended, so the plan waits for it: until every planned
call has answered, or the stream is dropped. It knows plans and generators, and no synthesizers.

The invariant: a plan ends exactly once, and nothing that the garbage collector runs takes a lock.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncGenerator, Generator
from queue import SimpleQueue
from typing import Any

from parrot_compat.integrations.plans.book import PlanBook, SentPlan
from parrot_compat.integrations.process_lock import ProcessLock

__all__ = ["Lingering", "RunPlan", "is_stream"]


def is_stream(result: Any) -> bool:
    return isinstance(result, Generator | AsyncGenerator)


class RunPlan(SentPlan):
    """`is_only`: the synthesizer needs no other plan inside this run."""

    def __init__(self, book: PlanBook, name: str, synthesizer: Any, *, is_only: bool) -> None:
        super().__init__(book, name, users=1)
        self._is_only = is_only
        self._synthesizer = weakref.ref(synthesizer)

    def covers(self, synthesizer: Any) -> bool:
        """Nothing that it asks inside this run needs a plan of its own."""
        return self._is_only and self._synthesizer() is synthesizer


class Lingering:
    """The plans whose spans have ended, and whose streams have not been read to their end."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._plans: dict[int, RunPlan] = {}
        self._dropped: SimpleQueue[int] = SimpleQueue()
        self._reader: threading.Thread | None = None

    def keep(self, plan: RunPlan, stream: Any) -> None:
        """Until `stream` is over, or gone."""
        key = id(plan)
        with self._lock:
            self._plans[key] = plan
            if self._reader is None or not self._reader.is_alive():
                self._reader = threading.Thread(target=self._read, name="parrot-streams", daemon=True)
                self._reader.start()
        # The collector may run anywhere, in the middle of whatever holds a lock: it only leaves a note.
        weakref.finalize(stream, self._dropped.put, key).atexit = False

    def plans(self) -> tuple[RunPlan, ...]:
        with self._lock:
            return tuple(self._plans.values())

    def end_answered(self) -> None:
        for plan in self.plans():
            if plan.is_answered:
                self._end(id(plan))

    def _end(self, key: int) -> None:
        with self._lock:
            plan = self._plans.pop(key, None)
        if plan is not None:
            plan.run_ended(failed=False)

    def _read(self) -> None:
        while True:
            self._end(self._dropped.get())
