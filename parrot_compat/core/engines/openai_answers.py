"""An answer of an OpenAI-compatible server, event by event, told apart as that server does it: text, reasoning, calls,
refusals.

It knows nothing of connections. The invariant: a call of a tool has its id and name on its first piece, and arguments
that are not empty once the answer has ended by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..call import Finish, Usage, WrittenLogprobs
from ..engine import Chunk
from ..tool_calls import CallPiece, new_call_id
from .openai_requests import finish_of, usage_of

__all__ = ["AnswerReader"]

_REASONING = ("reasoning_content", "reasoning")
"""What servers call it; OpenAI's API has no word for it."""
_STOPS = ("stop_reason", "matched_stop")
"""Where vLLM and SGLang say which stop string ended a text."""
_BYTES = re.compile(r"bytes:(?:\\x[0-9a-fA-F]{2})+")
"""How a text completion writes a token that is part of a character."""


@dataclass(slots=True)
class _Call:
    index: int
    """Among the calls of the answer; servers count in ways of their own."""
    id: str = ""
    name: str = ""
    arguments: str = ""
    """Not told yet."""
    is_told: bool = False
    has_arguments: bool = False


@dataclass(slots=True)
class AnswerReader:
    """Of a stream with one choice."""

    has_text: bool = False
    """There is text in it, which has log probabilities where they were asked for; calls need not have any."""
    has_logprobs: bool = False
    _calls: dict[int, _Call] = field(default_factory=dict)
    """By index, those that are told now."""
    _heard_calls: list[_Call] = field(default_factory=list)
    _reason: str | None = None
    _stop: str | None = None
    _usage: Usage = field(default_factory=Usage)

    def read(self, event: Any) -> Chunk | None:
        """What an event adds that can be told now."""
        if event.usage is not None:
            self._usage = usage_of(event.usage)
        chunk = Chunk()
        for choice in event.choices[:1]:
            delta = getattr(choice, "delta", None)
            if delta is None:
                told = getattr(choice, "logprobs", None)
                chunk = Chunk(text=getattr(choice, "text", None) or "", logprobs=tuple(_of_text(told)))
            else:
                chunk = Chunk(
                    text=delta.content or "",
                    reasoning=self._reasoning(delta),
                    refusal=getattr(delta, "refusal", None) or "",
                    calls=tuple(self._heard(delta.tool_calls or ())),
                    logprobs=tuple(_of_chat(getattr(choice, "logprobs", None))),
                )
            self._reason = choice.finish_reason or self._reason
            self._stop = self._stop or _stop(choice)
        self.has_text = self.has_text or bool(chunk.text)
        self.has_logprobs = self.has_logprobs or bool(chunk.logprobs)
        return None if chunk == Chunk() else chunk

    def end(self) -> Chunk | None:
        """The last chunk; `None` where the server has not said how the answer ended."""
        if self._reason is None:
            return None
        told = [call for call in self._heard_calls if call.is_told]
        finish = finish_of(self._reason, has_calls=bool(told))
        empty = [CallPiece(index=call.index, arguments="{}") for call in told if not call.has_arguments]
        calls = () if finish in (Finish.LENGTH, Finish.CONTENT_FILTER) else tuple(empty)
        return Chunk(finish=finish, usage=self._usage, calls=calls, stop=self._stop)

    def _reasoning(self, delta: Any) -> str:
        extra = delta.model_extra or {}
        return next((extra[name] for name in _REASONING if isinstance(extra.get(name), str)), "")

    def _heard(self, deltas: Any) -> Iterator[CallPiece]:
        for delta in deltas:
            call = self._call_of(delta)
            call.id = call.id or delta.id or ""
            if delta.function is not None:
                call.name = call.name or delta.function.name or ""
                call.arguments += delta.function.arguments or ""
            if not call.name or (call.is_told and not call.arguments):
                continue
            head = {} if call.is_told else {"id": call.id or new_call_id(), "name": call.name}
            yield CallPiece(index=call.index, arguments=call.arguments, **head)
            call.has_arguments = call.has_arguments or bool(call.arguments)
            call.is_told, call.arguments = True, ""

    def _call_of(self, delta: Any) -> _Call:
        """Some servers give every call the same index, or none: a new id with a name of its own begins a new call."""
        index = delta.index or 0
        known = self._calls.get(index)
        is_new = known is not None and known.id and delta.id not in (None, "", known.id)
        if known is None or (is_new and delta.function is not None and delta.function.name):
            known = self._calls[index] = _Call(len(self._heard_calls))
            self._heard_calls.append(known)
        return known


def _stop(choice: Any) -> str | None:
    extra = getattr(choice, "model_extra", None) or {}
    return next((extra[name] for name in _STOPS if isinstance(extra.get(name), str)), None)


# ---- log probabilities -----------------------------------------------------------------------------------


def _of_chat(told: Any) -> Iterator[WrittenLogprobs]:
    for item in getattr(told, "content", None) or ():
        top = tuple((_written(one), float(one.logprob)) for one in item.top_logprobs or ())
        yield WrittenLogprobs(_written(item), float(item.logprob), top)


def _written(item: Any) -> bytes:
    return _encoded(item.token) if item.bytes is None else bytes(item.bytes)


def _of_text(told: Any) -> Iterator[WrittenLogprobs]:
    if told is None:
        return
    tokens, logprobs = told.tokens or [], told.token_logprobs or []
    tops = told.top_logprobs or [None] * len(tokens)
    for token, logprob, top in zip(tokens, logprobs, tops, strict=False):
        ranked = sorted((top or {}).items(), key=lambda one: one[1], reverse=True)
        alternatives = tuple((_encoded(name), float(value)) for name, value in ranked)
        yield WrittenLogprobs(_encoded(token), float("-inf") if logprob is None else float(logprob), alternatives)


def _encoded(token: str) -> bytes:
    if _BYTES.fullmatch(token):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return token.encode("utf-8", "surrogatepass")
