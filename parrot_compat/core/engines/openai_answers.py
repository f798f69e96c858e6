"""An answer of an OpenAI-compatible server, event by event, told apart as that server does it: text, reasoning, calls.

It knows nothing of connections. The invariant: a call of a tool is told once, when the answer has ended.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from ..call import Finish, Usage
from ..engine import Chunk
from ..tool_calls import ToolCall
from .openai_requests import finish_of, usage_of

__all__ = ["AnswerReader"]

_REASONING = ("reasoning_content", "reasoning")
"""What servers call it; OpenAI's API has no word for it."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""

    def whole(self) -> ToolCall:
        id = self.id or f"call_{uuid.uuid4().hex[:24]}"
        return ToolCall(name=self.name, arguments=self.arguments or "{}", id=id)


@dataclass(slots=True)
class AnswerReader:
    """Of a stream with one choice."""

    _calls: dict[int, _Call] = field(default_factory=dict)
    _reason: str | None = None
    _usage: Usage = field(default_factory=Usage)

    def read(self, event: Any) -> Chunk | None:
        """What an event adds that can be told now."""
        if event.usage is not None:
            self._usage = usage_of(event.usage)
        text, reasoning = "", ""
        for choice in event.choices[:1]:
            delta = getattr(choice, "delta", None)
            text = (delta.content if delta is not None else getattr(choice, "text", None)) or ""
            if delta is not None:
                reasoning = self._reasoning(delta)
                self._keep(delta.tool_calls or ())
            self._reason = choice.finish_reason or self._reason
        return Chunk(text=text, reasoning=reasoning) if text or reasoning else None

    def end(self) -> Chunk | None:
        """The last chunk; `None` where the server has not said how the answer ended."""
        if self._reason is None:
            return None
        calls = tuple(self._calls[index].whole() for index in sorted(self._calls))
        finish = finish_of(self._reason, has_calls=bool(calls))
        # a call that was cut off by the limit is none
        return Chunk(finish=finish, usage=self._usage, calls=() if finish is Finish.LENGTH else calls)

    def _reasoning(self, delta: Any) -> str:
        extra = delta.model_extra or {}
        return next((extra[name] for name in _REASONING if isinstance(extra.get(name), str)), "")

    def _keep(self, deltas: Any) -> None:
        for delta in deltas:
            call = self._calls.setdefault(delta.index or 0, _Call())
            call.id = delta.id or call.id
            if delta.function is not None:
                call.name += delta.function.name or ""
                call.arguments += delta.function.arguments or ""
