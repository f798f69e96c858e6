"""Answers in the words of the Responses API: events as an answer is drawn, and the response that they come to.

It knows nothing of requests. An answer is a list of items, of which one is open: thoughts, a message, a call of a tool.

The invariant: a whole response is what its events, put together, are; each event has its number, in their order.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from parrot_compat.core.call import Finish, Logprobs, Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.tool_calls import CallPiece
from parrot_compat.server.errors import Problem

from .entries import Entry, TextEntries

__all__ = ["Telling"]

Event = dict[str, Any]
_Kind = Literal["reasoning", "message", "function_call"]
_PartKind = Literal["reasoning_text", "output_text", "refusal"]
_PREFIXES = {"reasoning": "rs", "message": "msg", "function_call": "fc"}
_REASONS = {Finish.LENGTH: "max_output_tokens", Finish.CONTENT_FILTER: "content_filter"}
"""Why an answer is not complete."""
_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
"""Of a response that failed; all else is the server's."""


@dataclass(slots=True)
class _Part:
    kind: _PartKind
    texts: list[str] = field(default_factory=list)
    logprobs: list[Entry] = field(default_factory=list)

    def said(self) -> dict[str, Any]:
        """Without what is said of it."""
        return {"refusal" if self.kind == "refusal" else "text": "".join(self.texts)}

    def told(self) -> dict[str, Any]:
        more = {"annotations": [], "logprobs": list(self.logprobs)} if self.kind == "output_text" else {}
        return {"type": self.kind} | self.said() | more


@dataclass(slots=True)
class _Item:
    kind: _Kind
    id: str
    index: int
    call: dict[str, Any]
    """Of a call: its id and the name of the tool."""
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    parts: list[_Part] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        head: dict[str, Any] = {"id": self.id, "type": self.kind, "status": self.status}
        if self.kind == "function_call":
            return head | self.call | {"arguments": "".join(self.arguments)}
        head["content"] = [part.told() for part in self.parts]
        more: dict[str, Any] = {"role": "assistant"} if self.kind == "message" else {"summary": []}
        return head | more


class Telling:
    def __init__(
        self,
        head: dict[str, Any],
        *,
        receipt: Callable[[Usage], dict[str, Any]] = lambda usage: {},
        entries: Callable[[Sequence[Logprobs]], list[Entry]] | None = None,
    ) -> None:
        """`head` is what the response says before it has begun; `receipt` what it says beside its usage, `entries` how
        log probabilities are told, if they are."""
        self._head = head
        self._receipt = receipt
        self._entries = entries
        self._items: list[_Item] = []
        self._open: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._drawn = TextEntries()
        self._next = 0
        self._end: dict[str, Any] = {"status": "in_progress", "error": None, "incomplete_details": None, "usage": None}

    @property
    def response(self) -> dict[str, Any]:
        """As far as it has come."""
        return self._head | self._end | {"output": [item.told() for item in self._items]}

    async def events(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Event, None]:
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self.response)
        async for chunk in chunks:
            for event in self._take(chunk):
                yield event

    async def whole(self, chunks: AsyncIterator[Chunk]) -> dict[str, Any]:
        async for chunk in chunks:
            for _ in self._take(chunk):
                pass
        return self.response

    def failed(self, problem: Problem) -> list[Event]:
        """Instead of what is left of it. OpenAI's SDKs raise what stands in the `error` of an event."""
        for item in self._items:
            item.status = "completed" if item.status == "completed" else "incomplete"
        error = problem.envelope()["error"]
        told = {"code": _CODES.get(problem.status, "server_error"), "message": problem.message}
        self._end |= {"status": "failed", "error": told}
        flat = {name: error[name] for name in ("code", "message", "param")}
        return [
            self._event("error", **flat, error=error),
            self._event("response.failed", response=self.response),
        ]

    # ---- what a chunk adds -------------------------------------------------------------------------

    def _take(self, chunk: Chunk) -> Iterator[Event]:
        pieces = list(chunk.calls)
        while pieces and pieces[0].name is None and self._calls.get(pieces[0].index) is self._open:
            yield from self._call(pieces.pop(0))  # the rest of a call comes before what is said behind it
        if self._entries is not None:
            self._drawn.push(self._entries(chunk.logprobs))
        if chunk.reasoning:
            self._drawn.of(chunk.reasoning, begins=self._open is None)  # have no place here
            yield from self._say("reasoning", "reasoning_text", chunk.reasoning)
        if chunk.text:
            yield from self._say("message", "output_text", chunk.text)
        if chunk.refusal:
            yield from self._say("message", "refusal", chunk.refusal)
        if chunk.calls:
            self._drawn.drop()
        for piece in pieces:
            yield from self._call(piece)
        if chunk.finish is not None:
            yield from self._finish(chunk.finish, chunk.usage or Usage())

    def _say(self, kind: _Kind, part_kind: _PartKind, text: str) -> Iterator[Event]:
        item = self._open
        if item is None or item.kind != kind:
            yield from self._begin(kind)
            item = self._items[-1]
        begins = not item.parts or item.parts[-1].kind != part_kind
        if begins:
            yield from self._end_part(item)
            item.parts.append(_Part(part_kind))
            yield self._of_part("response.content_part.added", item, part=item.parts[-1].told())
        if text:
            entries = self._drawn.of(text, begins=begins) if part_kind == "output_text" else []
            yield self._delta(item, text, entries)

    def _delta(self, item: _Item, text: str, entries: list[Entry]) -> Event:
        part = item.parts[-1]
        part.texts.append(text)
        part.logprobs += entries
        more = {"logprobs": entries} if part.kind == "output_text" else {}
        return self._of_part(f"response.{part.kind}.delta", item, delta=text, **more)

    def _call(self, piece: CallPiece) -> Iterator[Event]:
        if piece.name is not None:
            yield from self._begin("function_call", {"call_id": piece.id, "name": piece.name})
            self._calls[piece.index] = self._items[-1]
        item = self._calls[piece.index]
        if item is not self._open:  # a server behind this one mixes its calls: this one is not done yet
            yield from self._close()
            self._open, item.status = item, "in_progress"
        if piece.arguments:
            item.arguments.append(piece.arguments)
            yield self._of_item("response.function_call_arguments.delta", item, delta=piece.arguments)

    # ---- items -------------------------------------------------------------------------------------

    def _begin(self, kind: _Kind, call: dict[str, Any] | None = None) -> Iterator[Event]:
        yield from self._close()
        index = len(self._items)
        id = f"{_PREFIXES[kind]}_{self._head['id'].removeprefix('resp_')}{index:02x}"
        self._open = _Item(kind, id, index, call or {})
        self._items.append(self._open)
        yield self._event("response.output_item.added", output_index=index, item=self._open.told())

    def _close(self, status: Literal["completed", "incomplete"] = "completed") -> Iterator[Event]:
        item, self._open = self._open, None
        if item is None:
            return
        if item.kind == "function_call":
            whole = {"arguments": "".join(item.arguments), "name": item.call["name"]}
            yield self._of_item("response.function_call_arguments.done", item, **whole)
        else:
            yield from self._end_part(item)
        item.status = status
        yield self._event("response.output_item.done", output_index=item.index, item=item.told())

    def _end_part(self, item: _Item) -> Iterator[Event]:
        if not item.parts:
            return
        part = item.parts[-1]
        more = {"logprobs": list(part.logprobs)} if part.kind == "output_text" else {}
        yield self._of_part(f"response.{part.kind}.done", item, **part.said(), **more)
        yield self._of_part("response.content_part.done", item, part=part.told())

    def _finish(self, finish: Finish, usage: Usage) -> Iterator[Event]:
        reason = _REASONS.get(finish)
        if reason is None and not any(item.kind != "reasoning" for item in self._items):
            yield from self._say("message", "output_text", "")  # an answer that is nothing is a message, too
        last = self._open
        if last is not None and last.parts and last.parts[-1].kind == "output_text" and (rest := self._drawn.rest()):
            yield self._delta(last, "", rest)
        yield from self._close("completed" if reason is None else "incomplete")
        self._end |= {"usage": _usage(usage)} | self._receipt(usage)
        if reason is None:
            self._end |= {"status": "completed", "completed_at": int(time.time())}
        else:
            self._end |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        yield self._event(f"response.{self._end['status']}", response=self.response)

    # ---- events ------------------------------------------------------------------------------------

    def _event(self, type: str, **fields: Any) -> Event:
        event = {"type": type, "sequence_number": self._next, **fields}
        self._next += 1
        return event

    def _of_item(self, type: str, item: _Item, **fields: Any) -> Event:
        return self._event(type, item_id=item.id, output_index=item.index, **fields)

    def _of_part(self, type: str, item: _Item, **fields: Any) -> Event:
        return self._of_item(type, item, content_index=len(item.parts) - 1, **fields)


def _usage(usage: Usage) -> dict[str, Any]:
    """Nothing is asked for what the cache keeps, so that nothing is told as written to it."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    }
