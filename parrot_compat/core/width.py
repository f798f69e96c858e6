"""A width: how many calls of one plan may be with the engines at once. The app that is planned has set it.

It knows tasks and where they go next, and nothing of plans, engines or time.

The invariant: at most `most` of its tasks are in the queue or on an engine, and while any waits, that many are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .task import Task

__all__ = ["Width"]

_Place = tuple[float, int, Task]
"""When it is due, and its number. A task that was put again has a new place; the old one is not it."""


class Width:
    """Tasks pass as they are due, which is how the queue would take them: a call that was claimed goes before those
    that may never be asked for. Of those that are due together each passes as it came."""

    def __init__(self, most: int, put: Callable[[Task], None]) -> None:
        self._most = most
        self._put = put
        self._passed: set[Task] = set()
        self._waiting: dict[Task, _Place] = {}
        self._line: list[_Place] = []  # a heap, in which some have left
        self._came = 0

    def put(self, task: Task) -> None:
        """To the queue: now, or when others have ended. It is put again when what it is wanted for has changed."""
        if task in self._passed:
            self._put(task)
            return
        before = self._waiting.get(task)
        self._came += before is None
        place = self._waiting[task] = (task.due_s, self._came if before is None else before[1], task)
        heapq.heappush(self._line, place)
        self._let_pass()

    def ended(self, task: Task) -> None:
        self._passed.discard(task)
        self._waiting.pop(task, None)
        self._let_pass()

    def check(self) -> None:
        assert len(self._passed) == self._most or (len(self._passed) < self._most and not self._waiting)
        assert not any(task.is_over for task in (*self._passed, *self._waiting))
        assert {place[-1] for place in self._line if self._is_here(place)} == self._waiting.keys()

    # ---- inside ----------------------------------------------------------------------------------------

    def _let_pass(self) -> None:
        while self._waiting and len(self._passed) < self._most:
            place = heapq.heappop(self._line)
            if not self._is_here(place):
                continue
            task = place[-1]
            del self._waiting[task]
            self._passed.add(task)
            self._put(task)
        if len(self._line) > 2 * len(self._waiting) + 64:  # mostly places that were left
            self._line = list(self._waiting.values())
            heapq.heapify(self._line)

    def _is_here(self, place: _Place) -> bool:
        return self._waiting.get(place[-1]) is place
