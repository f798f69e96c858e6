"""Amounts: how much a request may say, which is known before what it says is read.

A body of some bytes may hold as many objects, and each of them takes kilobytes and microseconds once it is read, be it
right or wrong. It knows nothing of what is said.

The invariant: what is too much is refused for that, whatever is wrong with the rest of it.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator

__all__ = ["MOST_PIECES", "ONE_BY_ONE", "at_most", "holds_more", "pieces_in"]

MOST_PIECES = 524_288
"""Texts, lists, objects and members of objects. Numbers are none: lists of token ids are long. A message of one text
has seven."""


def holds_more(body: bytes, pieces: int) -> bool:
    """A body of JSON, than so many pieces."""
    if body.count(b'"') // 2 + sum(map(body.count, (b":", b"[", b"{"))) <= pieces:
        return False
    return any(number > pieces for number, _ in enumerate(_PIECE.finditer(body), 1))  # some of those are amid texts


_PIECE = re.compile(rb'[:\[{]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def pieces_in(value: Any, most: int) -> int:
    """Of JSON that has been read. Those beyond `most` may be left uncounted."""
    held, left = 0, [value]
    while left and held <= most:
        match left.pop():
            case dict() as members:
                held += 1 + 2 * len(members)  # names are texts
                left.extend(members.values())
            case list() as items:
                held += 1
                left.extend(items)
            case str():
                held += 1
    return held


def at_most(members: int) -> BeforeValidator:
    """Of an object, or of all objects in a list together."""

    def check(value: Any) -> Any:
        held = 0
        if isinstance(value, dict):
            held = len(value)
        elif isinstance(value, list):
            held = max(len(value), sum(len(item) for item in value if isinstance(item, dict)))
        if held > members:
            raise ValueError(f"has {held} members; at most {members} are taken")
        return value

    return BeforeValidator(check)


def _one_by_one(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, dict):
        return handler(value)
    read: dict[str, Any] = {}
    for name, member in value.items():
        read |= handler({name: member})
    return read


ONE_BY_ONE = WrapValidator(_one_by_one)
"""The first wrong member of an object ends it, as an item does in `bodies.Items`."""
