"""A few threads, and a line before them that keeps nothing of who has left it.

The line of a `ThreadPoolExecutor` keeps cancelled work, and all that it would have read, until its turn comes. Here
work waits in asyncio, and is given to a thread only when one is free.

It knows nothing of the work. The invariant: no more of it runs than there are threads, and what nobody waits for any
more gets none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import QueueFull

__all__ = ["Threads"]

Result = TypeVar("Result")


class Threads:
    """Of one event loop."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = threads
        self._free = asyncio.Semaphore(threads)
        self._closed = ""
        """Why they are; empty while they are not."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], Result], over: Callable[[], None] = lambda: None) -> Result:
        """`work`, in a thread, in turn. `over` is called when nothing of it waits or runs any more: what runs cannot be
        stopped, though nobody waits for it. Errors: those of `work`, and `QueueFull` where they are closed."""
        try:
            await self._get_one()
        except BaseException:
            over()
            raise
        done = asyncio.get_running_loop().run_in_executor(self._pool, work)

        def ended(done: asyncio.Future[Any]) -> None:
            self._free.release()
            over()
            if not done.cancelled():
                done.exception()  # nobody may be left to take it

        done.add_done_callback(ended)
        await asyncio.wait((done,))  # whoever leaves takes its thread from nobody: that ends later
        return done.result()

    async def close(self, why: str) -> None:
        """Nothing more begins: those who are in line, or come later, hear `why`. Returns when what runs has ended."""
        if self._closed:
            return
        self._closed = why
        try:
            for _ in range(self._threads):  # behind those in line
                await self._free.acquire()
        finally:
            self._pool.shutdown(wait=False)

    async def _get_one(self) -> None:
        """Errors: `QueueFull` where they are closed, or have been before its turn came."""
        if not self._closed:
            await self._free.acquire()
            if not self._closed:
                return
            self._free.release()
        raise QueueFull(self._closed)
