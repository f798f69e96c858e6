"""Calls as the symbolic run finds them: the body that the app will send, with references for unknown texts.

It knows the chat model's own request and markers, and no runnables. The body is made by the model itself
from real messages, so it is the app's own, field by field; then strings with markers become parts.

The invariant: a body with a marker anywhere but in a message's text is not drafted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.messages import BaseMessage

from parrot_compat.integrations.plans.calls import body_of
from parrot_compat.integrations.plans.ledger import reference

from .settings import ParrotSettings
from .values import Markers, Source

__all__ = ["can_be_planned", "draft_body"]

NOT_OF_THE_REQUEST = ("ls_structured_output_format", "structured_output_format")


def can_be_planned(model: ParrotSettings) -> bool:
    """Something between the app and the server (a cache, a limiter) would see calls that it does not expect, or
    not see calls that it does."""
    if model.rate_limiter is not None or not _answers_as_ours(type(model)):
        return False
    return model.cache is False or (model.cache is None and get_llm_cache() is None)


@cache
def _answers_as_ours(kind: type[ParrotSettings]) -> bool:
    """A subclass that does something of its own with messages or answers must be asked itself."""
    deciding = ("invoke", "stream", "generate", "_generate", "_stream", "ainvoke", "astream", "agenerate")
    methods = (getattr(kind, name) for name in (*deciding, "_agenerate", "_astream"))
    return all(method.__module__.startswith(("parrot_compat.", "langchain_core.")) for method in methods)


def draft_body(
    model: ParrotSettings, messages: list[BaseMessage], arguments: Mapping[str, Any], markers: Markers, run: str
) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """(body with references, ids of the calls it reads), or `None` if this call cannot be planned."""
    given = {name: value for name, value in arguments.items() if name not in NOT_OF_THE_REQUEST}
    stop = given.pop("stop", None)
    body = body_of(model._request(messages, stop, given))
    if body is None or body.get("n", 1) != 1:
        return None
    reads: dict[str, None] = {}
    split = [_split(message, markers, run, reads) for message in body["messages"]]
    body["messages"] = split
    # Markers in any other place (a name, a parameter, a part of a list) would reach the server as text.
    if json.dumps(markers.prefix)[1:-1] in json.dumps(body):
        return None
    return body, tuple(reads)


def _split(message: dict[str, Any], markers: Markers, run: str, reads: dict[str, None]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, str) or not markers.within(content):
        return message
    parts: list[dict[str, Any]] = []
    for piece in markers.split(content):
        if isinstance(piece, Source):
            call = f"{run}-{piece.call}"
            reads[call] = None
            parts.append(reference(call, None if piece.pointer is None else {"json_pointer": piece.pointer}))
        else:
            parts.append({"type": "text", "text": piece})
    return {**message, "content": parts}
