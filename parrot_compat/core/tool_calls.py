"""Calls of tools, read out of a model's text: each family writes them its own way (`tool_styles`).

It knows nothing of prompts, engines or of how a call is told to a client. A call is told in pieces, as it is drawn: its
name once it is certain that it is one (`call_object`), then the text of its arguments.

The invariant: how a text is cut into pieces changes nothing of what is read out of it; what is no call stays text, and
what was told as a call stays one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .call_object import CallObject
from .named_call import NamedCall
from .output_format import ToolStyle
from .tagged_call import TaggedCall
from .tool_styles import SHORT_ID, TOOL_STYLES, CallSyntax, held_back

__all__ = ["CallPiece", "ToolCall", "ToolReader", "joined_pieces", "new_call_id", "whole_calls"]


_USUAL_ID = re.compile(SHORT_ID)
_AnyCall = CallObject | NamedCall | TaggedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool that a model has made."""

    name: str
    arguments: str
    """As the model wrote them: JSON, where a form held it to that; where an answer was cut off, its beginning."""
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPiece:
    """What a stretch of text adds to the call number `index` of its answer. The first of a call has its id and name."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


def joined_pieces(pieces: Iterable[CallPiece]) -> tuple[CallPiece, ...]:
    """One for each call."""
    heads: dict[int, CallPiece] = {}
    arguments: dict[int, list[str]] = {}
    for piece in pieces:
        heads.setdefault(piece.index, piece)
        arguments.setdefault(piece.index, []).append(piece.arguments)
    return tuple(replace(head, arguments="".join(arguments[index])) for index, head in sorted(heads.items()))


def whole_calls(pieces: Iterable[CallPiece]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(name=call.name or "", arguments=call.arguments, id=call.id or "") for call in joined_pieces(pieces)
    )


def new_call_id(style: ToolStyle | None = None) -> str:
    is_short = style is not None and TOOL_STYLES[style].has_short_ids
    return uuid.uuid4().hex[:9] if is_short else f"call_{uuid.uuid4().hex[:24]}"


@dataclass(slots=True)
class ToolReader:
    """Text in, text and pieces of calls out. White space around calls is no text."""

    style: ToolStyle
    is_parallel: bool = True
    """False: after the first call nothing more is read."""
    names: Collection[str] | None = None
    """Of the tools that may be called: what would call another is text. `None`: any."""
    is_first: bool = False
    """Calls come before all else, or there are none."""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """Of the tools' arguments, by name: what they are, where a model does not write JSON."""
    pieces: list[CallPiece] = field(default_factory=list)
    is_over: bool = False
    """The one call that is wanted is whole."""
    _place: Literal["text", "start", "between", "call"] = "start"
    """start: nothing has come yet of an answer that may be calls; between: where a call may begin or calls may end."""
    _held: str = ""
    _mark: str | None = None
    """What came before the first call of a run; `None` once there is one."""
    _call: _AnyCall = field(default_factory=CallObject)
    _index: int = -1
    """Of the call that is being told."""
    _has_text: bool = False
    _ends_begun: bool = False
    """The text has ended amid what may have become a call."""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """So far."""
        return whole_calls(self.pieces)

    @property
    def is_cut(self) -> bool:
        """The text has ended before a call that it had begun: amid its arguments, or before it was known to be one."""
        return self._ends_begun or (self._place == "call" and self._call.is_cut)

    def push(self, text: str) -> tuple[str, list[CallPiece]]:
        """The text that is no part of a call, and what there is of calls now."""
        self._held += text
        return self._read(is_end=False)

    def end(self) -> tuple[str, list[CallPiece]]:
        """The rest."""
        return self._read(is_end=True)

    @property
    def _syntax(self) -> CallSyntax:
        return TOOL_STYLES[self.style]

    def _read(self, is_end: bool) -> tuple[str, list[CallPiece]]:
        if self._place == "start" and not self._syntax.bare and not self.is_first:
            self._place = "text"  # calls may come anywhere in it
        said: list[str] = []
        told = len(self.pieces)
        goes_on = not self.is_over
        while goes_on:
            match self._place:
                case "text":
                    goes_on = self._find(said, is_end)
                case "start":
                    goes_on = self._start(is_end)
                case "between":
                    goes_on = self._begin(said, is_end)
                case "call":
                    goes_on = self._follow(said, is_end)
        return "".join(said), self.pieces[told:]

    # ---- each goes on from its place; True: there is more to read ---------------------------------------

    def _find(self, said: list[str], is_end: bool) -> bool:
        marks = self._syntax.openings
        if not self._syntax.is_amid_text or (self.is_first and not self.pieces):
            self._say(said, self._held)
            self._held = ""
            return False
        place, mark = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=(-1, ""))
        if mark:
            text = self._held[:place].rstrip()
            self._say(said, text)
            self._open(self._held[len(text) : place], mark, self._held[place + len(mark) :])
            return True
        safe = len(self._held) if is_end else len(self._held) - held_back(self._held, *marks)
        if is_end and self._held.endswith(tuple(mark[:size] for mark in marks for size in range(2, len(mark)))):
            self._ends_begun = True
        text, self._held = self._held[:safe], self._held[safe:]
        self._say(said, text.rstrip() if is_end and self.pieces else text)
        return False

    def _start(self, is_end: bool) -> bool:
        begun = self._held.lstrip()
        space = self._held[: len(self._held) - len(begun)]
        mark = next((mark for mark in self._syntax.openings if begun.startswith(mark)), None)
        if mark is not None:
            self._open(space, mark, begun.removeprefix(mark))
        elif not is_end and any(mark.startswith(begun) for mark in self._syntax.openings):
            return False
        elif self._syntax.bare and begun.startswith(self._syntax.bare):
            self._place, self._mark, self._held = "between", space, begun
        else:
            self._place = "text"
        return True

    def _open(self, space: str, mark: str, after: str) -> None:
        """Calls begin: with a mark before them, or with that of a call itself."""
        of_call = mark if mark == self._syntax.call_mark else ""
        self._place, self._mark, self._held = "between", space + mark.removesuffix(of_call), of_call + after

    def _begin(self, said: list[str], is_end: bool) -> bool:
        close = self._syntax.close
        rest = self._held.lstrip(self._syntax.between)
        if self._mark is not None:
            self._mark += self._held[: len(self._held) - len(rest)]
        self._held = rest
        if self._may_be_call(rest):
            self._place, self._call = "call", self._new_call(rest)
            return True
        if close and rest.startswith(close):
            self._held = rest.removeprefix(close)
            self._leave(said, close)
            return True
        if not rest or close.startswith(rest):
            if not is_end:
                return False
            if self._mark is None:
                self._held = ""  # a closing mark that was cut off is no text either
            else:
                self._ends_begun = True
        self._leave(said)
        return True

    def _may_be_call(self, rest: str) -> bool:
        if self._syntax.is_named:
            return bool(rest) and self._mark is not None  # each has a mark of its own
        tag = self._syntax.call_mark
        return rest.startswith("{") or (bool(tag) and rest.startswith(tag[:2]))

    def _new_call(self, rest: str) -> _AnyCall:
        if self._syntax.is_named:
            return NamedCall(self.names)
        if rest.startswith("{"):
            return CallObject(self.names)
        # without the mark before it only the name of a tool tells a call from a text about one
        is_bare = self._mark is not None and not self._mark.strip()
        return TaggedCall(list(self.schemas) if is_bare and self.names is None else self.names, self.schemas)

    def _leave(self, said: list[str], end: str = "") -> None:
        """There are no more calls here; what looked like some and was none is text."""
        if self._mark is not None:
            self._say(said, self._mark + end)
        self._place, self._mark = "text", None

    def _follow(self, said: list[str], is_end: bool) -> bool:
        call = self._call
        self._held = call.push(self._held)
        if call.is_call:
            self._tell(call)
        if call.is_none or (is_end and not call.is_call):
            self._ends_begun = self._ends_begun or (is_end and not call.is_none)
            text = (self._mark or "") + call.text
            self._say(said, text.rstrip() if is_end and self.pieces and not self._held else text)
            self._place, self._mark, self._call = "text", None, CallObject()
            return True
        if not call.is_over:
            return False
        self._place, self._index = "between", -1
        if not self.is_parallel:
            self.is_over, self._held = True, ""
        return not self.is_over

    def _tell(self, call: _AnyCall) -> None:
        arguments = call.take_arguments()
        if self._index < 0:
            self._mark, self._index = None, self.pieces[-1].index + 1 if self.pieces else 0
            self.pieces.append(CallPiece(index=self._index, id=self._id_of(call), name=call.name, arguments=arguments))
        elif arguments:
            self.pieces.append(CallPiece(index=self._index, arguments=arguments))

    def _id_of(self, call: _AnyCall) -> str:
        """The model's own, where it has written one: the history is then what it has drawn, and cached."""
        own = call.call_id
        is_good = own is not None and _USUAL_ID.fullmatch(own) and all(piece.id != own for piece in self.pieces)
        return own if own is not None and is_good else new_call_id(self.style)

    def _say(self, said: list[str], text: str) -> None:
        if self.pieces and not self._has_text:
            text = text.lstrip()
        if text:
            self._has_text = True
            said.append(text)
