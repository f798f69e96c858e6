"""Background work: the owner of every asyncio task that the manager starts.

It knows nothing of what the work does.

The invariant: work that was spawned is either running and known here, or done with its failure reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Background"]

Result = TypeVar("Result")


class Background:
    """A set of asyncio tasks with one owner. (A `TaskGroup` would end all of them when one fails.)"""

    def __init__(self) -> None:
        self._work: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancel what still runs and wait until it has cleaned up."""
        while self._work:
            for task in self._work:
                task.cancel()
            await asyncio.wait(tuple(self._work))

    def __len__(self) -> int:
        return len(self._work)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": f"background work {task.get_name()!r} failed", "exception": error, "task": task}
            )
