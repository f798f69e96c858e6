"""Long lists of work as requests that a server takes: no more calls and no more bytes in each than its limits allow.

It knows the limits that our servers (and OpenAI's) have where nobody changed them, and nothing of what is asked.

The invariant: every item is in one chunk, in order; an item that no chunk could hold is alone, and the server says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["chunks"]

MOST_CALLS = 2048
MOST_BYTES = 24 * 2**20
"""Of the items: what else is in a request has room beside them in the 32 MiB of its body."""

Item = TypeVar("Item")


def chunks(items: Sequence[Item], calls: int = 1) -> Iterator[Sequence[Item]]:
    """`calls` are made of each item. Of no items: one chunk, for the server to say what it thinks of that."""
    most, begin, size = max(1, MOST_CALLS // calls), 0, 0
    for index, item in enumerate(items):
        more = len(json.dumps(item))
        if index > begin and (index - begin == most or size + more > MOST_BYTES):
            yield items[begin:index]
            begin, size = index, 0
        size += more
    yield items[begin:]
