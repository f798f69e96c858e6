"""The open answer of a plan, read: one mapping for each server-sent event.

It knows the SDK's streams and nothing of plans. The invariant: what is not a stream of events is `NotAPlan`, before
anything of it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import openai

__all__ = ["NotAPlan", "Pushes"]


class NotAPlan(Exception):
    """The path answers, but not as ours does."""


class Pushes(openai.Stream[Mapping[str, Any]]):
    """Server-sent events as they are. The SDK's own reader takes a member called `error` for the stream's end."""

    def __stream__(self) -> Iterator[Mapping[str, Any]]:
        kind = self.response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise NotAPlan(f"{kind or 'nothing'} where text/event-stream was asked for")
        yield from _events(self.response.iter_bytes())


def _events(received: Iterator[bytes]) -> Iterator[Mapping[str, Any]]:
    buffer = b""
    data: list[bytes] = []
    for piece in received:
        buffer += piece
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                event = b"\n".join(data)
                data = []
                if event != b"[DONE]":
                    yield cast("Mapping[str, Any]", json.loads(event))
