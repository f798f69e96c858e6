"""Values of JSON: which of those that a reader lets pass a writer can write, and how large ones are written.

It knows nothing of what they stand for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["can_be_sent_back", "written"]

_AT_ONCE = 4096  # numbers or characters: a fraction of a millisecond
_MOST_BITS = 1024  # as many as the largest float has


def can_be_sent_back(value: Any) -> bool:
    """JSON has no NaN, and Python writes no number of thousands of digits; its readers let both pass where no type
    says otherwise."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, float):
            if not math.isfinite(value):
                return False
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            return False
    return True


def written(data: Mapping[str, Any]) -> bytes:
    """As JSON in ASCII, for threads: while `json.dumps` writes, be it for seconds, no other thread gets a turn."""
    return "".join(_pieces(data)).encode()


def _pieces(value: Any) -> Iterator[str]:
    match value:
        case dict():
            yield from _joined("{}", (_member(name, member) for name, member in value.items()))
        case list() | tuple() if value and isinstance(value[0], int | float):
            yield from _joined("[]", ([_dumped(part)[1:-1]] for part in _parts(value)))
        case list() | tuple():
            yield from _joined("[]", map(_pieces, value))
        case str():
            yield '"'
            yield from (_dumped(part)[1:-1] for part in _parts(value))
            yield '"'
        case _:
            yield _dumped(value)


def _member(name: str, value: Any) -> Iterator[str]:
    yield f"{_dumped(name)}:"
    yield from _pieces(value)


def _joined(brackets: str, members: Iterable[Iterable[str]]) -> Iterator[str]:
    yield brackets[0]
    for number, member in enumerate(members):
        if number:
            yield ","
        yield from member
    yield brackets[1]


def _parts(value: Any) -> Iterator[Any]:
    return (value[at : at + _AT_ONCE] for at in range(0, len(value), _AT_ONCE))


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
