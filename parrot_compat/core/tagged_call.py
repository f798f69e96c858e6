"""A tagged call: a call of a tool as Qwen's newer models write it, read while it is being drawn.

    <function=add>
    <parameter=a>
    1
    </parameter>
    </function>

It knows nothing of the mark before it (`tool_calls`) and of what a value is (`parameters`). Its arguments are told as
JSON: a text as it is drawn, any other value once it is whole.

The invariant: what has been said to be a call stays one, and what is none of it between its tags is passed over. It is
a call as soon as its name is whole, and none at the first character that no such call can have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from .parameters import TEXT, json_of, kinds_of, schema_of
from .tool_styles import TOOL_STYLES

__all__ = ["TaggedCall"]

_SYNTAX = TOOL_STYLES["qwen3_coder"]
_OPEN, _END = _SYNTAX.call_mark, "</function>"
_VALUE, _VALUE_END = "<parameter=", "</parameter>"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SPACE = " \t\r\n"
_NEXT = (_SYNTAX.mark, _SYNTAX.close, _OPEN)
"""What stands behind a call: where one comes within it, the tag that ends it is missing."""
_TAGS = (_VALUE, _END, *_NEXT)
_ENDS = re.compile(rf"\n?(?:{_VALUE_END}|(?P<outer>{_END}[{_SPACE}]*{_SYNTAX.close}))")
"""Of a value. That of the whole call ends it too, where its own is missing."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _beginnings(mark: str) -> str:
    """The pattern of all that the mark may begin with."""
    pattern = ""
    for character in reversed(mark):
        pattern = re.escape(character) + (f"(?:{pattern})?" if pattern else "")
    return pattern


_ENDS_BEGUN = re.compile(
    rf"\n?(?:{_beginnings(_VALUE_END)}|{_beginnings(_END)}|{_END}[{_SPACE}]*(?:{_beginnings(_SYNTAX.close)})?)\Z|\n\Z"
)


class TaggedCall:
    """`names`: of the tools that may be called; `None`: any. `schemas`: of their arguments, by name."""

    def __init__(self, names: Collection[str] | None = None, schemas: Mapping[str, Any] | None = None) -> None:
        self.name: str | None = None
        self.call_id: str | None = None
        """Such calls have none."""
        self.is_over = False
        """Its last tag has come."""
        self.is_none = False
        self._names = names
        self._schemas = schemas or {}
        self._state: Literal["head", "between", "value"] = "head"
        self._head = ""
        self._held = ""
        """What has come and is not read yet."""
        self._told: list[str] = []
        self._parameter = ""
        self._kinds = TEXT
        self._value: list[str] = []
        """Of one that is told once it is whole."""
        self._has_begun = False
        """Something of the value has come, if only the line break before it."""
        self._is_first = True

    @property
    def is_call(self) -> bool:
        return self.name is not None

    @property
    def is_cut(self) -> bool:
        return self.is_call and not self.is_over

    @property
    def text(self) -> str:
        """All of it, as long as it is no call."""
        return self._head

    def push(self, text: str) -> str:
        """What of the text comes after the call, or after the character that makes it none."""
        self._held += text
        goes_on = True
        while goes_on and not (self.is_over or self.is_none):
            match self._state:
                case "head":
                    goes_on = self._begin()
                case "between":
                    goes_on = self._find_tag()
                case "value":
                    goes_on = self._read_value()
        if not (self.is_over or self.is_none):
            return ""
        rest, self._held = self._held, ""
        return rest

    def take_arguments(self) -> str:
        """What has come of them since they were last taken."""
        told, self._told = "".join(self._told), []
        return told

    # ---- each goes on from its state; True: there is more to read -----------------------------------------

    def _begin(self) -> bool:
        for place, character in enumerate(self._held, 1):
            self._head += character
            name = self._head[len(_OPEN) :]
            if character == ">" and self._may_be_called(name[:-1]):
                self.name, self._state, self._held = name[:-1], "between", self._held[place:]
                self._told.append("{")
                return True
            if not (_OPEN.startswith(self._head) or (self._head.startswith(_OPEN) and _NAME.fullmatch(name))):
                self.is_none, self._held = True, self._held[place:]
                return False
        self._held = ""
        return False

    def _may_be_called(self, name: str) -> bool:
        return _NAME.fullmatch(name) is not None and (self._names is None or name in self._names)

    def _find_tag(self) -> bool:
        begins = self._held.find("<")
        self._held = self._held[begins:] if begins >= 0 else ""
        if self._held.startswith(_VALUE):
            return self._begin_value()
        if self._held.startswith(_END):
            self._held = self._held.removeprefix(_END)
            self._end()
        elif self._held.startswith(_NEXT):
            self._end()
        elif any(tag.startswith(self._held) for tag in _TAGS):
            return False
        else:
            self._held = self._held[1:]
        return True

    def _begin_value(self) -> bool:
        tag, closed, rest = self._held.partition(">")
        name = tag.removeprefix(_VALUE)
        if "\n" in name:
            self._held = self._held[1:]
            return True
        if not closed:
            return False
        arguments = self._schemas.get(self.name or "", {})
        self._parameter, self._kinds = name, kinds_of(schema_of(name, arguments), arguments)
        self._state, self._held, self._value, self._has_begun = "value", rest, [], False
        if self._kinds == TEXT:
            self._told.append(f'{self._key()}"')
        return True

    def _key(self) -> str:
        separator, self._is_first = "" if self._is_first else ", ", False
        return f"{separator}{json.dumps(self._parameter, ensure_ascii=False)}: "

    def _read_value(self) -> bool:
        if not self._has_begun and self._held:
            self._has_begun, self._held = True, self._held.removeprefix("\n")
        end = _ENDS.search(self._held)
        found = end or _ENDS_BEGUN.search(self._held)
        safe = len(self._held) if found is None else found.start()
        value, self._held = self._held[:safe], self._held[safe:]
        self._take(value)
        if end is None:
            return False
        goes_on, behind = self._is_quoted(end[0]), end.end() - safe
        if goes_on:
            self._take(self._held[:behind])
        else:
            self._end_value()
        outer = end["outer"] or ""
        self._held = self._held[behind if goes_on else behind - len(outer) :]
        return True

    def _is_quoted(self, end: str) -> bool:
        """It stands in a text within JSON, which has no line breaks, and ends nothing."""
        return end[0] != "\n" and not self._kinds & TEXT and '"' in _STRING.sub("", "".join(self._value))

    def _take(self, value: str) -> None:
        if self._kinds == TEXT:
            self._told.append(json.dumps(value, ensure_ascii=False)[1:-1])
        else:
            self._value.append(value)

    def _end_value(self) -> None:
        self._state = "between"
        if self._kinds == TEXT:
            self._told.append('"')
        else:
            self._told.append(self._key() + json_of("".join(self._value), self._kinds))

    def _end(self) -> None:
        self.is_over = True
        self._told.append("}")
