"""Values in a symbolic run: plain data, texts that do not exist yet (`plans.markers`), and what nobody can know.

It knows values and nothing of runnables. The invariant: a value of a class that is not known here is no plain data.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables.utils import AddableDict

from parrot_compat.integrations.plans.markers import Markers

__all__ = ["UNKNOWN", "Unknown", "are_whole", "call_answering", "is_known", "is_plain", "stand_in"]

SCALARS: frozenset[type] = frozenset(
    # what a message's text is, and StrOutputParser's too: a string that can also be called, as it could long ago
    {TextAccessor}
    | {str, int, float, bool, type(None), bytes, datetime.date, datetime.datetime, decimal.Decimal, uuid.UUID}
)
LISTS: frozenset[type] = frozenset((list, tuple))
DICTS: frozenset[type] = frozenset((dict, AddableDict))


class Unknown:
    """What an opaque step returns: it must run before anything can be said."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


def is_known(value: Any) -> bool:
    """Nothing in it is unknown."""
    if type(value) in DICTS:
        return all(map(is_known, value.values()))
    if type(value) in LISTS:
        return all(map(is_known, value))
    return not isinstance(value, Unknown)


def is_plain(value: Any) -> bool:
    """Data whose formatting runs no code of the app's: formatting it once more, and early, is not noticed."""
    kind = type(value)
    if kind in SCALARS:
        return True
    if kind in LISTS:
        return all(map(is_plain, value))
    if kind in DICTS:
        return all(type(key) in SCALARS and is_plain(item) for key, item in value.items())
    if kind.__module__.startswith("langchain_core.") and isinstance(value, BaseMessage):
        return is_plain(value.content)
    return kind is Document and is_plain(value.metadata)


def stand_in(value: Any, markers: Markers) -> bool:
    """A text that does not exist yet is somewhere in it."""
    if isinstance(value, str):
        return markers.stand_in(value)
    if type(value) in DICTS:
        return any(stand_in(item, markers) for item in value.values())
    if type(value) in LISTS:
        return any(stand_in(item, markers) for item in value)
    return isinstance(value, BaseMessage) and stand_in(value.content, markers)


def are_whole(value: Any, markers: Markers) -> bool:
    """Nothing has cut or changed a marker in it."""
    if isinstance(value, str):
        return markers.are_whole(value)
    if type(value) in DICTS:
        return all(are_whole(item, markers) for item in value.values())
    if type(value) in LISTS:
        return all(are_whole(item, markers) for item in value)
    return not isinstance(value, BaseMessage) or are_whole(value.content, markers)


def call_answering(value: Any, markers: Markers) -> int | None:
    """The number of the call, where this is its whole answer."""
    if type(value) is not AIMessage or not isinstance(value.content, str):
        return None
    return markers.call_of(value.content)
