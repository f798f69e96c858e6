"""A width: how many calls of one plan may be with the engines at once. The app that is planned has set it.

It knows tasks and where they go next, and nothing of plans, engines or time.

The invariant: at most `most` of its tasks are in the queue or on an engine, and while any waits, that many are.
"""

from __future__ import annotations

from collections.abc import Callable

from .task import Task

__all__ = ["Width"]


class Width:
    """Tasks pass in the order in which they come."""

    def __init__(self, most: int, put: Callable[[Task], None]) -> None:
        self._most = most
        self._put = put
        self._passed: set[Task] = set()
        self._waiting: dict[Task, None] = {}

    def put(self, task: Task) -> None:
        """To the queue: now, or when others have ended. Putting again is harmless."""
        if task in self._passed:
            self._put(task)
        else:
            self._waiting[task] = None
            self._let_pass()

    def ended(self, task: Task) -> None:
        self._passed.discard(task)
        self._waiting.pop(task, None)
        self._let_pass()

    def check(self) -> None:
        assert len(self._passed) == self._most or (len(self._passed) < self._most and not self._waiting)
        assert not any(task.is_over for task in (*self._passed, *self._waiting))

    def _let_pass(self) -> None:
        while self._waiting and len(self._passed) < self._most:
            task = next(iter(self._waiting))
            del self._waiting[task]
            self._passed.add(task)
            self._put(task)
