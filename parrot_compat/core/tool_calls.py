"""Calls of tools, read out of a model's text: each family writes them its own way (`output_format.ToolStyle`).

It knows nothing of prompts, engines or of how a call is told to a client.

The invariant: how a text is cut into pieces changes nothing of what is read out of it; what is no call stays text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .output_format import ToolStyle

__all__ = ["ToolCall", "ToolReader"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_STARTS: Mapping[ToolStyle, tuple[str, ...]] = {
    "hermes": (_OPEN,),
    "llama3_json": ("<|python_tag|>", "{"),
    "mistral": ("[TOOL_CALLS]", "["),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool that a model has made."""

    name: str
    arguments: str
    """JSON."""
    id: str


@dataclass(slots=True)
class ToolReader:
    """Text in, text and calls out. White space around calls is no text."""

    style: ToolStyle
    calls: list[ToolCall] = field(default_factory=list)
    is_broken: bool = False
    """Something that began like a call was none."""
    _held: str = ""
    _has_text: bool = False

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """The text that is no part of a call, and the calls that are whole now."""
        self._held += text
        return self._read(is_end=False)

    def end(self) -> tuple[str, list[ToolCall]]:
        """The rest."""
        return self._read(is_end=True)

    def _read(self, is_end: bool) -> tuple[str, list[ToolCall]]:
        said: list[str] = []
        calls: list[ToolCall] = []
        if self.style == "hermes":
            while self._hermes(said, calls, is_end):
                pass
        else:
            self._json(said, calls, is_end)
        self.calls += calls
        self._has_text = self._has_text or any(said)
        return "".join(said), calls

    def _hermes(self, said: list[str], calls: list[ToolCall], is_end: bool) -> bool:
        """One piece of what is held. True: there may be more."""
        before, tag, after = self._held.partition(_OPEN)
        if not tag:
            safe = len(self._held) if is_end else _safe(self._held, _OPEN)
            text, self._held = self._held[:safe], self._held[safe:]
            if is_end and self.calls + calls:
                text = text.rstrip()
            said.append(text.lstrip() if self.calls + calls and not self._has_text and not any(said) else text)
            return False
        inner, end, rest = after.partition(_CLOSE)
        if not end and not is_end:
            said.append(before.rstrip())
            self._held = before[len(before.rstrip()) :] + tag + after
            return False
        found = _calls(inner, self.style) if end else None
        if found is None:
            self.is_broken = True
            said.append(before + tag + inner + end)
        else:
            said.append(before.rstrip())
            calls += found
        self._held = rest
        return bool(rest)

    def _json(self, said: list[str], calls: list[ToolCall], is_end: bool) -> None:
        """These families write calls and nothing else, or text and nothing else."""
        begun = self._held.lstrip()
        may_call = not self._has_text and (
            not begun or any(begun.startswith(start) or start.startswith(begun) for start in _STARTS[self.style])
        )
        if may_call and not is_end:
            return
        found = _calls(begun, self.style) if may_call and begun else None
        if found is None:
            self.is_broken = may_call and bool(begun)
            said.append(self._held)
        else:
            calls += found
        self._held = ""


def _safe(text: str, tag: str) -> int:
    """How much of the text can be said: no beginning of the tag, and no white space that a tag may follow."""
    kept = next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)
    return len(text[: len(text) - kept].rstrip())


def _calls(text: str, style: ToolStyle) -> list[ToolCall] | None:
    """The calls that the text is; `None` where it is something else."""
    for start in _STARTS[style]:
        if len(start) > 1:
            text = text.removeprefix(start).lstrip()
    decoder, items = json.JSONDecoder(), []
    text = text.strip()
    try:
        while text:
            item, used = decoder.raw_decode(text)
            items += item if isinstance(item, list) else [item]
            text = text[used:].lstrip("; \r\n\t")
    except (ValueError, RecursionError):
        return None
    calls = [_call(item, style) for item in items]
    return None if not calls or None in calls else [call for call in calls if call is not None]


def _call(item: Any, style: ToolStyle) -> ToolCall | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return None
    arguments = item.get("arguments", item.get("parameters", {}))
    if not isinstance(arguments, dict):
        return None
    # Mistral's templates take ids of nine letters and digits, and no others
    id = uuid.uuid4().hex[:9] if style == "mistral" else f"call_{uuid.uuid4().hex[:24]}"
    return ToolCall(name=item["name"], arguments=json.dumps(arguments, ensure_ascii=False), id=id)
