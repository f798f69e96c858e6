"""The events of our own streams: each has its type and its number.

It knows nothing of what they tell. The invariant: the numbers of one stream count from 0, with none left out.
"""

from __future__ import annotations

import itertools
from typing import Any

from parrot_compat.server.sse import event

__all__ = ["Numbered"]


class Numbered:
    """Says the events of one stream."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, type: str, **data: Any) -> bytes:
        return event({"type": type, "sequence_number": next(self._numbers), **data})
