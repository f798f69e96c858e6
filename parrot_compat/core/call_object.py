"""A call object: the JSON object in which a model writes a call of a tool, read while it is being drawn.

    {"name": "add", "arguments": {"a": 1, "b": 2}}

It knows nothing of what stands around the object (`tool_calls`), and does not judge the arguments: they are the
model's own text, from their opening brace to the one that closes it.

The invariant: what has been said to be a call stays one. It is a call as soon as its name is known and its arguments
have begun, or it has ended without any; it is none at the first character that no such object can have.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Literal

__all__ = ["CallObject", "Nesting"]

_ARGUMENTS = ("arguments", "parameters")
_MEMBERS = ("name", "type", "id", *_ARGUMENTS)
"""What may come before it is known to be a call; models write the name first."""
_BEHIND = ("<", "[", "]", "{", ";")
"""What stands behind a call: where it comes behind arguments, the brace that closes the call is missing."""
_LONGEST_WORD = 256
_SPACE = " \t\r\n"
_State = Literal["open", "first", "key", "in_key", "colon", "value", "in_string", "literal", "nested", "after", "lost"]


class Nesting:
    """Follows an object or a list from the brace that opens it to the one that closes it."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = self._is_escaped = False

    def ends_with(self, character: str) -> bool:
        """Take the next character. True: it was the last."""
        if self._is_escaped:
            self._is_escaped = False
        elif self._is_in_string:
            self._is_escaped = character == "\\"
            self._is_in_string = character != '"'
        elif character == '"':
            self._is_in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            return self._depth == 0
        return False


class CallObject:
    """`names`: of the tools that may be called; `None`: any."""

    def __init__(self, names: Collection[str] | None = None) -> None:
        self.name: str | None = None
        self.call_id: str | None = None
        """Stands behind the arguments, if at all: too late to be told with the name."""
        self.is_over = False
        """Its closing brace has come."""
        self.is_none = False
        self._state: _State = "open"
        self._said: list[str] = []
        self._word: list[str] = []
        self._key = ""
        self._has_arguments = False
        self._is_in_arguments = False
        self._arguments: list[str] = []
        self._names = names
        self._nesting = Nesting()
        self._is_escaped = False
        self._is_unclosed = False
        """Its closing brace is missing: what has come is none of it."""

    @property
    def is_call(self) -> bool:
        return self.name is not None and (self._has_arguments or self.is_over) and not self.is_none

    @property
    def is_cut(self) -> bool:
        """A call whose arguments have not ended."""
        return self.is_call and self._is_in_arguments

    @property
    def text(self) -> str:
        """All of it, as long as it is no call."""
        return "".join(self._said)

    def push(self, text: str) -> str:
        """What of the text comes after the object, or after the character that makes it none."""
        for place, character in enumerate(text):
            if self.is_over or self.is_none:
                return text[place:]
            if not self.is_call:
                self._said.append(character)
            self._take(character)
            if self._is_unclosed:
                return text[place:]
        return ""

    def take_arguments(self) -> str:
        """What has come of them since they were last taken."""
        told, self._arguments = "".join(self._arguments), []
        return told

    # ---- inside ----------------------------------------------------------------------------------------

    def _take(self, character: str) -> None:
        match self._state:
            case "nested":
                self._nest(character)
            case "in_key" | "in_string":
                self._spell(character)
            case "literal" if character not in ",}":
                pass
            case "literal":
                self._state = "after"
                self._build(character)
            case "lost":  # it has been told as a call: what is wrong behind its arguments is passed over
                if character == "}":
                    self._close()
            case _:
                if character not in _SPACE:
                    self._build(character)

    def _build(self, character: str) -> None:
        match self._state, character:
            case "open", "{":
                self._state = "first"
            case (("first" | "key"), '"'):
                self._state = "in_key"
            case "colon", ":":
                self._state = "value"
            case "value", _:
                self._begin_value(character)
            case "after", ",":
                self._state = "key"
            case (("first" | "after"), "}"):
                self._close()
            case _:
                self._fail(character)

    def _begin_value(self, character: str) -> None:
        is_arguments = self._key in _ARGUMENTS and not self._has_arguments
        if (is_arguments and character != "{") or (self._key == "name" and self.name is None and character != '"'):
            self._fail()
        elif character == '"':
            self._state = "in_string"
        elif character in "{[":
            self._state, self._nesting = "nested", Nesting()
            self._is_in_arguments = is_arguments
            self._has_arguments = self._has_arguments or is_arguments
            self._nest(character)
        else:
            self._state = "literal"

    def _nest(self, character: str) -> None:
        if self._is_in_arguments:
            self._arguments.append(character)
        if self._nesting.ends_with(character):
            self._state, self._is_in_arguments = "after", False

    def _spell(self, character: str) -> None:
        """A key, or a text that is a value."""
        if self._is_escaped or character != '"':
            self._is_escaped = character == "\\" and not self._is_escaped
            self._word.append(character)
            if len(self._word) > _LONGEST_WORD:
                self._fail()
            return
        word, self._word = "".join(self._word), []
        try:
            spelt = str(json.loads(f'"{word}"'))
        except ValueError:
            return self._fail()
        if self._state == "in_key":
            self._key, self._state = spelt, "colon"
            if spelt not in _MEMBERS:
                self._fail()
        else:
            self._state = "after"
            if self._key == "name" and self.name is None:
                self.name = spelt
                if self._names is not None and spelt not in self._names:
                    self.is_none = True

    def _close(self) -> None:
        self.is_over, self.is_none = True, self.name is None
        if not self._has_arguments:
            self._arguments.append("{}")

    def _fail(self, character: str = "") -> None:
        if self.is_call and self._state == "after" and character in _BEHIND:
            self._close()
            self._is_unclosed = True
        elif self.is_call:
            self._state, self._word = "lost", []
        else:
            self.is_none = True
