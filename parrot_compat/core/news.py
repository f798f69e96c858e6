"""News: those who wait for something to happen are woken when it has.

It knows nothing of what happens. It is told much more often than anybody waits (every token of every call), so telling
nobody costs nothing, and each waiter is one future.

The invariant: whoever waits at the moment of a `tell` is woken by it, and nobody else; one that leaves disturbs nobody.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

__all__ = ["News"]


class News:
    """Belongs to one event loop."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def tell(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():  # it was cancelled
                one.set_result(None)

    async def heard(self) -> None:
        """Returns after the next `tell`."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(one)
        try:
            await one
        except asyncio.CancelledError:
            with suppress(ValueError):  # told in the same turn: the list is another one by now
                self._waiting.remove(one)
            raise
