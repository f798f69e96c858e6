"""A named call: a call of a tool as Mistral's newer models write it, read while it is being drawn.

    add[ARGS]{"a": 1, "b": 2}
    add[CALL_ID]a1b2c3d4e[ARGS]{"a": 1, "b": 2}

It knows nothing of the mark before it (`tool_calls`), and does not judge the arguments: they are the model's own text,
from their opening brace to the one that closes it.

The invariant: what has been said to be a call stays one. It is a call as soon as its arguments have begun, and none at
the first character that no such call can have.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from .call_object import Nesting
from .tool_styles import TOOL_STYLES

__all__ = ["NamedCall"]

_ARGUMENTS, _ID = TOOL_STYLES["mistral_args"].arguments_mark, TOOL_STYLES["mistral_args"].id_mark
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_HEAD = re.compile(rf"({_NAME.pattern})(?:{re.escape(_ID)}([A-Za-z0-9_-]{{1,64}}))?(?:{re.escape(_ARGUMENTS)})?")
"""All that comes before the arguments."""
_SPACE = " \t\r\n"
_LONGEST = 256


class NamedCall:
    """`names`: of the tools that may be called; `None`: any."""

    def __init__(self, names: Collection[str] | None = None) -> None:
        self.name: str | None = None
        self.call_id: str | None = None
        self.is_over = False
        """The closing brace of its arguments has come."""
        self.is_none = False
        self._names = names
        self._head = ""
        self._arguments: list[str] = []
        self._nesting: Nesting | None = None

    @property
    def is_call(self) -> bool:
        return self._nesting is not None

    @property
    def is_cut(self) -> bool:
        return self.is_call and not self.is_over

    @property
    def text(self) -> str:
        """All of it, as long as it is no call."""
        return self._head

    def push(self, text: str) -> str:
        """What of the text comes after the call, or after the character that makes it none."""
        for place, character in enumerate(text):
            if self.is_over or self.is_none:
                return text[place:]
            if self._nesting is None:
                self._begin(character)
            else:
                self._arguments.append(character)
                self.is_over = self._nesting.ends_with(character)
        return ""

    def take_arguments(self) -> str:
        """What has come of them since they were last taken."""
        told, self._arguments = "".join(self._arguments), []
        return told

    def _begin(self, character: str) -> None:
        head = _HEAD.fullmatch(self._head.rstrip(_SPACE))
        if character == "{" and head is not None and (self._names is None or head[1] in self._names):
            self.name, self.call_id = head[1], head[2]
            self._nesting, self._arguments = Nesting(), [character]
            self._nesting.ends_with(character)
            return
        self._head += character
        is_space = character in _SPACE and head is not None and len(self._head) < _LONGEST
        self.is_none = not is_space and not _may_go_on(self._head)


def _may_go_on(head: str) -> bool:
    """More characters can make a call of it."""
    name, bracket, rest = head.partition("[")
    if not _NAME.fullmatch(name):
        return False
    marks = bracket + rest
    if marks.startswith(_ID):
        marks = marks.removeprefix(_ID)
        id, bracket, rest = marks.partition("[")
        if not id:
            return not bracket
        return _HEAD.fullmatch(f"x{_ID}{id}") is not None and _ARGUMENTS.startswith(bracket + rest)
    return _ARGUMENTS.startswith(marks) or _ID.startswith(marks)
