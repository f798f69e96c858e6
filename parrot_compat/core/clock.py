"""Clocks: what time it is, and how to wait.

A clock knows nothing of calls or engines. The manager, the fleet and the scripted engine take one, so that
a whole server can run in simulated time: hours of load in a second, the same result every time.

The invariant: time never goes backwards, and of two sleepers the one due first wakes first.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

__all__ = ["Clock", "RealClock", "SimulatedClock"]

_QUIET_TURNS = 64  # turns of the event loop without a new sleeper after which nothing else can be about to run:
# the longest chain of wake-ups between two sleeps in this package is under twenty turns


class Clock(Protocol):
    def now(self) -> float:
        """Seconds. Differences are meaningful for every clock; a `RealClock` also counts from the Unix epoch."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    """Seconds since the Unix epoch that never jump when somebody sets the machine's clock."""

    def __init__(self) -> None:
        self._epoch_s = time.time() - time.monotonic()

    def now(self) -> float:
        return self._epoch_s + time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimulatedClock:
    """Time that jumps to the next sleeper's moment as soon as everybody on the event loop waits.

    Work that leaves the loop (threads, sockets, other processes) is not seen: it takes no simulated time.
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._quiet_turns = 0
        self._is_turning = False

    def now(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._sleepers, (self._now_s + max(0.0, seconds), next(self._order), sleeper))
        self._quiet_turns = 0
        if not self._is_turning:
            self._is_turning = True
            loop.call_soon(self._turn, loop)
        await sleeper

    def check(self) -> None:
        assert all(due_s >= self._now_s for due_s, _, sleeper in self._sleepers if not sleeper.done())
        assert self._is_turning or not self._sleepers

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._quiet_turns += 1
        if self._quiet_turns > _QUIET_TURNS:
            self._wake_next()
        self._is_turning = bool(self._sleepers)
        if self._is_turning:
            loop.call_soon(self._turn, loop)

    def _wake_next(self) -> None:
        """Wake everybody who is due at the next moment that somebody waits for; the cancelled do not count."""
        self._quiet_turns = 0
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        if not self._sleepers:
            return
        self._now_s = self._sleepers[0][0]
        while self._sleepers and self._sleepers[0][0] <= self._now_s:
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
