"""A window: how many inputs to embed an engine has at a time, of all requests together, and whose turn the next is.

It knows nothing of engines or of what the inputs are. Tenants take turns by the tokens they were given places for; what
a tenant has waiting goes as it came.

The invariant: no more places are taken than there are, and while anybody waits for one, that many are.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Window"]


class Window:
    """Of one event loop."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self.tokens_to_come = 0
        """Of inputs that are meant for this engine and have no place yet; their owners count them."""
        self._line: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}
        self._given: dict[str, int] = {}  # tokens, by tenant, while anybody waited
        self._floor = 0  # where the tenant whose turn was last stood before it: who has been idle starts here

    async def take(self, tenant: str, tokens: int) -> None:
        """A place for an input of so many tokens, in turn."""
        if self.taken < self.places:
            self.taken += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if tenant not in self._line:
            self._line[tenant] = deque()
            self._given[tenant] = max(self._given.get(tenant, 0), self._floor)  # idling earns no credit
        self._line[tenant].append((tokens, place))
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given the place at the moment it left
                self.leave()
            raise

    def leave(self) -> None:
        """A place is free: the next has it at once."""
        while self._line:
            tenant = min(self._line, key=self._given.__getitem__)
            waiting = self._line[tenant]
            tokens, place = waiting.popleft()
            if not waiting:
                del self._line[tenant]
            if not place.done():  # else it has left
                self._floor = self._given[tenant]
                self._given[tenant] += tokens
                place.set_result(None)
                return
        self.taken -= 1
        self._given.clear()  # nobody waits: all start anew
        self._floor = 0

    def check(self) -> None:
        assert 0 <= self.taken <= self.places and self.tokens_to_come >= 0
        waiting = [place for line in self._line.values() for _, place in line if not place.done()]
        assert not waiting or self.taken == self.places
        assert self._line.keys() <= self._given.keys()
