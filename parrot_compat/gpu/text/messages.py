"""Messages of OpenAI's wire as chat templates want them.

It knows plain values; nothing of templates or tokens. The invariant: what is there is said once, as it was said; what
is not text is a `BadPrompt`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parrot_compat.core.errors import BadPrompt

__all__ = ["for_template", "with_all_contents"]


def for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's wire form → what templates read: text parts joined, tool-call arguments as objects.

    Fields that are `None` are left out, as newer transformers do: many templates would write the word "None".
    """
    changed = {name: value for name, value in message.items() if value is not None}
    if isinstance(message.get("content"), (list, tuple)):
        changed["content"] = "".join(_texts(message["content"]))
    if message.get("tool_calls"):
        changed["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return changed


def with_all_contents(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with an empty text where there are calls of tools and no content."""
    return [{"content": "", **message} if message.get("tool_calls") else message for message in messages]


def _texts(parts: Sequence[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        else:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise BadPrompt(f"content part of type {kind!r} is not text; this model takes text only")


def _tool_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return call  # what a model wrote that nothing held to JSON stands in the prompt as it was written
    return {**call, "function": {**function, "arguments": arguments}}
