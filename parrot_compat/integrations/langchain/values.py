"""Values in a symbolic run: plain data, texts that do not exist yet, and what nobody can know.

A text that does not exist yet is a *marker*: a string that no app's text contains, because it holds random
digits of this run alone. It travels through real templates as any text does, so the planned request is made by
the very code that will make the real one.

It knows values and nothing of runnables. The invariant: a marker never leaves the planner.
"""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from typing import Any, NamedTuple

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables.utils import AddableDict

__all__ = ["UNKNOWN", "Markers", "Source", "Unknown", "is_known", "is_plain"]

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


class Source(NamedTuple):
    """What a marker stands for: the text of a call, or what a JSON pointer names in it."""

    call: int
    pointer: str | None


class Markers:
    """The markers of one symbolic run."""

    def __init__(self) -> None:
        self.prefix = f"\ue000{uuid.uuid4().hex}:"
        self._pattern = re.compile(re.escape(self.prefix) + "(\\d+(?:\\.\\d+)?)\ue001")
        self._pointers: list[str] = []

    def text(self, number: int, pointer: str | None = None) -> str:
        """The text that call `number` will write, or what a JSON pointer names in it."""
        if pointer is None:
            return f"{self.prefix}{number}\ue001"
        self._pointers.append(pointer)
        return f"{self.prefix}{number}.{len(self._pointers) - 1}\ue001"

    def message(self, number: int) -> AIMessage:
        return AIMessage(content=self.text(number))

    def within(self, value: Any) -> bool:
        """A text that does not exist yet is somewhere in it."""
        if isinstance(value, str):
            return self.prefix in value
        if type(value) in DICTS:
            return any(map(self.within, value.values()))
        if type(value) in LISTS:
            return any(map(self.within, value))
        return isinstance(value, BaseMessage) and self.within(value.content)

    def is_message(self, value: Any) -> bool:
        """The whole answer of a call that has not been made."""
        return type(value) is AIMessage and isinstance(value.content, str) and self.prefix in value.content

    def are_whole(self, value: Any) -> bool:
        """Nothing has cut or changed a marker in it."""
        if isinstance(value, str):
            rest = self._pattern.sub("", value)
            return "\ue000" not in rest and "\ue001" not in rest
        if type(value) in DICTS:
            return all(map(self.are_whole, value.values()))
        if type(value) in LISTS:
            return all(map(self.are_whole, value))
        return not isinstance(value, BaseMessage) or self.are_whole(value.content)

    def split(self, text: str) -> list[str | Source]:
        """Text and what markers stand for, in order, without empty pieces."""
        pieces = self._pattern.split(text)
        mixed = [self._source(piece) if index % 2 else piece for index, piece in enumerate(pieces)]
        return [piece for piece in mixed if piece != ""]

    def whole(self, value: Any) -> int | None:
        """The number of the call, where this is its whole answer."""
        if type(value) is not AIMessage or not isinstance(value.content, str):
            return None
        match self.split(value.content):
            case [Source(call, None)]:
                return call
        return None

    def _source(self, marked: str) -> Source:
        number, _, pointer = marked.partition(".")
        return Source(int(number), self._pointers[int(pointer)] if pointer else None)
