"""Arrivals: a client's requests come on several connections, and a later one may be read before an earlier one.

It knows the event loop and nothing of requests.

The invariant: what had reached this machine when the request did that waits here has been read when the wait is over.
Of what is still on its way nothing is known: there a claim behind its plan's close is asked anew, which costs a call
and changes no answer.
"""

from __future__ import annotations

import asyncio

__all__ = ["earlier_ones"]

_TURNS = 16  # of the loop; a new connection is accepted, and what was sent on it read, in five


async def earlier_ones() -> None:
    """Returns when requests that were here before this one are being answered. An end that is told ends nothing that
    was asked for before: else that would be begun anew, for nobody."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
