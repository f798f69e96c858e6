"""Calls of tools in answers, as LangChain's messages hold them: those that can be made, and those that cannot.

LangChain closes what is open in the arguments of a streamed call. That is right while it streams; of one that was cut
off (`{"amount": 12` of `{"amount": 1250}`) it makes a call that the model has not made, and an agent runs it. How the
chunks of a stream are added up is LangChain's own affair. So the chunk that ends a stream notes what its calls are,
where others come of adding it up, and `settled` has them in the message that an agent gets.

It knows calls as the wire and LangChain have them, and no client. The invariant: a call in the message of `invoke` is
one whose arguments the model has written to their end, as a JSON object, however the answer came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call
from langchain_core.outputs import ChatGenerationChunk, ChatResult

__all__ = ["StreamedCalls", "settled", "told_apart"]

NOTED = "calls_at_end"
"""What it is called in `generation_info`, and so in a chunk's `response_metadata`."""


def told_apart(raw: Iterable[Mapping[str, Any]]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Calls in the wire's form (`id`, and `function` with its `name` and `arguments`)."""
    calls: list[ToolCall] = []
    broken: list[InvalidToolCall] = []
    for call in raw:
        if (function := call.get("function")) is None:
            continue  # of a kind that LangChain has no field for
        name, text = function.get("name"), function.get("arguments")
        try:
            made = tool_call(name=name or "", args=_arguments(text), id=call.get("id"))
        except Exception as error:  # whatever is wrong with a call the model wrote, the app sees the call
            wrong = f"its arguments are no JSON object: {error}"
            broken.append(invalid_tool_call(name=name, args=text, id=call.get("id"), error=wrong))
        else:
            calls.append(made)
    return calls, broken


def _arguments(text: str | None) -> dict[str, Any]:
    """Nothing, as nothing or as `null`, is what tools that take none are called with. Errors: `ValueError`."""
    arguments = json.loads(text, strict=False) if text else None  # models write line breaks in strings as they are
    if not isinstance(arguments, dict | None):
        raise ValueError(f"they are of type {type(arguments).__name__}")
    return arguments or {}


class StreamedCalls:
    """The calls of one streamed answer, as far as they have come."""

    def __init__(self) -> None:
        self._pieces: list[ToolCallChunk] = []

    def hear(self, chunk: ChatGenerationChunk) -> None:
        """Each chunk gets a note here if it ends the answer, and adding all up would not tell of its calls as they
        are."""
        if isinstance(chunk.message, AIMessageChunk):
            self._pieces.extend(chunk.message.tool_call_chunks)
        if not self._pieces or not (chunk.generation_info or {}).get("finish_reason"):
            return
        first, *others = [AIMessageChunk(content="", tool_call_chunks=[piece]) for piece in self._pieces]
        total = first + others
        calls, broken = told_apart(map(_raw, total.tool_call_chunks))
        if broken or calls != total.tool_calls:
            noted = {"tool_calls": calls, "invalid_tool_calls": broken}
            chunk.generation_info = {**(chunk.generation_info or {}), NOTED: noted}


def _raw(call: ToolCallChunk) -> dict[str, Any]:
    return {"id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}


def settled(result: ChatResult) -> ChatResult:
    """An answer that may have been put together from a stream, with its calls as they were written."""
    for generation in result.generations:
        message = generation.message
        noted = message.response_metadata.pop(NOTED, None)
        (generation.generation_info or {}).pop(NOTED, None)
        if noted is None or not isinstance(message, AIMessage):
            continue
        message.tool_calls, message.invalid_tool_calls = noted["tool_calls"], noted["invalid_tool_calls"]
        if isinstance(message.content, list):  # LangChain's v1 form has them among the blocks, too
            blocks = [block for block in message.content if not _is_call(block)]
            message.content = [*blocks, *map(dict, message.tool_calls)]
    return result


def _is_call(block: str | dict[Any, Any]) -> bool:
    return isinstance(block, dict) and block.get("type") in ("tool_call", "tool_call_chunk")
