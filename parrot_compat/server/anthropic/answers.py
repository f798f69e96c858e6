"""Answers in the words of Anthropic's API: events as an answer is drawn, and the message that they come to.

It knows nothing of requests. The invariant: a whole message is what its events, put together, are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from pydantic_core import from_json

from parrot_compat.core.call import Finish, Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.tool_calls import CallPiece
from parrot_compat.server.json_values import can_be_sent_back

__all__ = ["events_of", "message_of"]

Event = dict[str, Any]


async def events_of(id: str, model: str, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Event, None]:
    """The first event waits for the first chunk: it says what of the prompt was cached."""
    blocks, begun = _Blocks(), False
    async for chunk in chunks:
        if not begun:
            begun = True
            yield {"type": "message_start", "message": _empty(id, model, chunk.prompt or Usage())}
        for event in blocks.take(chunk):
            yield event
        if chunk.finish is not None:
            for event in blocks.close():
                yield event
            reason, stop = ("refusal", None) if blocks.has_refusal else _reason(chunk.finish, chunk.stop)
            yield {
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": stop},
                "usage": _usage(chunk.usage or Usage()),
            }
    yield {"type": "message_stop"}


async def message_of(id: str, model: str, chunks: AsyncIterator[Chunk]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    async with aclosing(events_of(id, model, chunks)) as events:
        async for event in events:
            match event["type"]:
                case "message_start":
                    message = event["message"]
                case "content_block_start":
                    message["content"].append(event["content_block"])
                case "content_block_delta" if event["delta"]["type"] == "input_json_delta":
                    index = event["index"]
                    inputs[index] = inputs.get(index, "") + event["delta"]["partial_json"]
                case "content_block_delta":
                    name = event["delta"]["type"].removesuffix("_delta")
                    message["content"][event["index"]][name] += event["delta"][name]
                case "message_delta":
                    message |= event["delta"] | {"usage": event["usage"]}
    for index, text in inputs.items():
        message["content"][index]["input"] = _input(text)
    return message


class _Blocks:
    """An answer is a list of blocks, of which one is open: thinking, text, a call of a tool."""

    def __init__(self) -> None:
        self._count = 0
        self._open: str | None = None
        self._calls: dict[int, int] = {}
        """Block of each call."""
        self.has_refusal = False

    def take(self, chunk: Chunk) -> Iterator[Event]:
        pieces = list(chunk.calls)
        while pieces and pieces[0].name is None and self._calls.get(pieces[0].index) == self._open_call:
            yield from self._call(pieces.pop(0))  # the rest of a call comes before what is said behind it
        self.has_refusal = self.has_refusal or bool(chunk.refusal)
        for kind, text in (("thinking", chunk.reasoning), ("text", chunk.text + chunk.refusal)):
            if text:
                if self._open != kind:
                    signed = {"signature": ""} if kind == "thinking" else {}
                    yield from self._begin(kind, {kind: ""} | signed)
                yield self._delta(self._count - 1, {"type": f"{kind}_delta", kind: text})
        for piece in pieces:
            yield from self._call(piece)

    @property
    def _open_call(self) -> int | None:
        return self._count - 1 if self._open == "tool_use" else None

    def close(self) -> Iterator[Event]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._count - 1}

    def _call(self, piece: CallPiece) -> Iterator[Event]:
        if piece.name is not None:
            yield from self._begin("tool_use", {"id": piece.id, "name": piece.name, "input": {}})
            self._calls[piece.index] = self._count - 1
        if piece.arguments:
            delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            yield self._delta(self._calls[piece.index], delta)

    def _begin(self, kind: str, fields: dict[str, Any]) -> Iterator[Event]:
        yield from self.close()
        self._open = kind
        self._count += 1
        block = {"type": kind} | fields
        yield {"type": "content_block_start", "index": self._count - 1, "content_block": block}

    def _delta(self, index: int, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": index, "delta": delta}


def _empty(id: str, model: str, prompt: Usage) -> dict[str, Any]:
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(prompt),
    }


def _usage(usage: Usage) -> dict[str, int]:
    """Anthropic counts the tokens of a prompt apart: those that were cached, and the others. Nothing is asked for what
    the cache keeps, so that nothing is told as written to it."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }


def _reason(finish: Finish, stop: str | None) -> tuple[str, str | None]:
    match finish:
        case Finish.LENGTH:
            return "max_tokens", None
        case Finish.TOOL_CALLS:
            return "tool_use", None
        case Finish.CONTENT_FILTER:
            return "refusal", None
        case Finish.STOP:
            return ("end_turn", None) if stop is None else ("stop_sequence", stop)


def _input(arguments: str) -> dict[str, Any]:
    """Of a call that was cut off what there is of it; what is no JSON is told as it was written."""
    try:
        found = from_json(arguments, allow_partial=True)
    except ValueError:
        found = None
    return found if isinstance(found, dict) and can_be_sent_back(found) else {"arguments": arguments}
