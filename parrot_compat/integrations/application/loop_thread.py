"""An event loop in a thread of its own, so that code with and without a loop can use the same asynchronous work.

It knows nothing of what the work does.

The invariant: work runs in the loop's thread only; whoever waits for it, from a thread or from another loop, gets
its result or its error, and stops it by leaving.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from parrot_compat.core.errors import Cancelled

__all__ = ["LoopThread", "shared"]

Result = TypeVar("Result")
Item = TypeVar("Item")


class LoopThread:
    """Starts with its first work. A daemon: a program that ends without closing it is not held up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # the garbage collector ends a stream anywhere, in here too
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def spawn(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Begin the work and do not wait. Cancelling the future stops it."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._running())
        except BaseException:
            work.close()
            raise

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for it, in a thread that has no loop to hold up."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(f"{self._name}: its own thread would wait for itself; use the asynchronous method")
        future = self.spawn(work)
        try:
            return future.result()
        except FutureCancelled:
            if self._is_closed:
                raise Cancelled(f"{self._name} was closed") from None
            raise
        finally:
            future.cancel()  # does nothing to what is over; an interrupted wait stops the work

    async def arun(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for it in any loop."""
        future = self.spawn(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if self._is_closed and not (waiting is not None and waiting.cancelling()):  # nobody has cancelled who waits
                raise Cancelled(f"{self._name} was closed") from None
            raise

    def iterate(self, items: AsyncGenerator[Item]) -> Iterator[Item]:
        try:
            while (found := self.run(_next(items))) is not None:
                yield found[0]
        finally:
            self._forget(items)

    async def aiterate(self, items: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
        try:
            while (found := await self.arun(_next(items))) is not None:
                yield found[0]
        finally:
            self._forget(items)

    def close(self) -> None:
        """Stop the work that still runs, wait until it has cleaned up, and end the thread."""
        if not self.is_here:  # nor is the thread, and one that is not here either may hold the lock
            return
        self.close_soon()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def close_soon(self) -> None:
        """As `close`, without waiting for it."""
        with self._lock:
            self._is_closed = True
            loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(stop.set)

    @property
    def is_here(self) -> bool:
        """False in a process that was forked from the one it was made in."""
        return self._pid == os.getpid()

    @property
    def has_started(self) -> bool:
        return self._loop is not None

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    # ---- inside ----------------------------------------------------------------------------------------

    def _running(self) -> asyncio.AbstractEventLoop:
        if not self.is_here:  # looked at first: a thread that is not here may hold the lock
            raise RuntimeError(f"{self._name} was made in another process: after a fork, make one of your own")
        with self._lock:
            if self._is_closed:
                raise Cancelled(f"{self._name} is closed")
            if self._loop is None:
                is_up = threading.Event()
                self._thread = threading.Thread(target=self._serve, args=(is_up,), name=self._name, daemon=True)
                self._thread.start()
                is_up.wait()
            assert self._loop is not None
            return self._loop

    def _serve(self, is_up: threading.Event) -> None:
        async def until_closed() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            is_up.set()
            await self._stop.wait()

        asyncio.run(until_closed())  # at its end it cancels what is left and closes open generators

    def _forget(self, items: AsyncGenerator[Any]) -> None:
        """Close the generator behind the reader, who may be anywhere, and may not wait: it may be the collector."""
        with suppress(Cancelled, RuntimeError):  # the loop closed the generator when it ended
            self.spawn(_closed(items))


async def shared(future: Future[Result]) -> Result:
    """The result of work that others wait for too: leaving does not stop it."""
    return await asyncio.shield(asyncio.wrap_future(future))


async def _next(items: AsyncIterator[Item]) -> tuple[Item] | None:
    async for item in items:
        return (item,)
    return None


async def _closed(items: AsyncGenerator[Any]) -> None:
    async with aclosing(items):
        pass
