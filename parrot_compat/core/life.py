"""Signs of life: how long it is since anything used a session or a plan, and who is woken when that is too long.

It knows nothing of what lives. An open request or a call that is at work is life; whoever keeps something only for
as long as its owner lives (a session, a plan) watches.

The invariant: a watcher is woken by the clock `ttl_s` after the last sign of life, once, and never while life is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from .clock import Clock

__all__ = ["Life", "Lives"]


class Life:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held = 0
        self._last_s = clock.now()
        self._released = asyncio.Event()
        self._released.set()

    @property
    def is_held(self) -> bool:
        return self._held > 0

    def sign(self) -> None:
        """Somebody looked in."""
        self._last_s = self._clock.now()

    def hold(self) -> None:
        if not self._held:
            self._released.clear()
        self._held += 1

    def release(self) -> None:
        self._held -= 1
        assert self._held >= 0
        if not self._held:
            self._last_s = self._clock.now()
            self._released.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.hold()
        try:
            yield
        finally:
            self.release()

    async def outlive(self, ttl_s: float) -> None:
        """Returns when nothing has lived for `ttl_s` seconds."""
        while True:
            await self._released.wait()
            left_s = self._last_s + ttl_s - self._clock.now()
            if left_s <= 0:
                return
            await self._clock.sleep(left_s)


class Lives:
    """Those that one thing keeps while it is at work. It comes to work once."""

    def __init__(self) -> None:
        self._lives: list[Life] = []
        self._is_at_work = False

    def add(self, life: Life) -> None:
        self._lives.append(life)
        if self._is_at_work:
            life.hold()

    def hold(self) -> None:
        self._is_at_work = True
        for life in self._lives:
            life.hold()

    def release(self) -> None:
        """Its work is over, or will never begin: none is kept any more."""
        lives, self._lives = self._lives, []
        if self._is_at_work:
            self._is_at_work = False
            for life in lives:
                life.release()
