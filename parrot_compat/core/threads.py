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

__all__ = ["Threads"]

Result = TypeVar("Result")


class Threads:
    """Of one event loop."""

    def __init__(self, threads: int, name: str) -> None:
        self._free = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], Result], over: Callable[[], None] = lambda: None) -> Result:
        """`work`, in a thread, in turn. `over` is called when nothing of it waits or runs any more: what runs cannot be
        stopped, though nobody waits for it. Errors: those of `work`."""
        try:
            await self._free.acquire()
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
