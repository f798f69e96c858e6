"""Arrivals: a client's requests come on several connections, and a later one may be read before an earlier one.

It knows the event loop and nothing of requests.

The invariant: what had been sent when the request was that waits here has been read when the wait is over.
"""

from __future__ import annotations

import asyncio

__all__ = ["earlier_ones"]

_TURNS = 16  # of the loop; a new connection is accepted, and what was sent on it read, in five


async def earlier_ones() -> None:
    """Returns when requests that were sent before this one are being answered. An end that is told ends nothing that
    was asked for before: else that would be begun anew, for nobody."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
