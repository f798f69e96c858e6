"""Markers: what stands for texts that do not exist yet in the requests of an app that has not run.

A marker is a string that no app's text contains, because it holds random digits of one search for calls alone. It
travels through a framework's own templates as any text does, so a planned request is made by the very code that will
make the real one. Where it stands in a message's text, the text becomes parts, and the marker a reference to the
planned call whose text it is. Anywhere else (in a name, a parameter, a part of a list) it would reach the server as
text, so a body with such a marker is not planned.

It knows text and JSON bodies, and no framework. The invariant: what is between two markers is the app's own, character
by character.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from .ledger import reference

__all__ = ["Markers", "Source"]

Transform = str | Mapping[str, Any]


class Source(NamedTuple):
    """What a marker stands for: the text of a call, or what a transform makes of it."""

    call: int
    transform: Transform | None = None


class Markers:
    """The markers of one search. They mean nothing to another."""

    def __init__(self) -> None:
        self._prefix = f"\ue000{uuid.uuid4().hex}:"
        self._pattern = re.compile(re.escape(self._prefix) + "(\\d+(?:\\.\\d+)?)\ue001")
        self._transforms: list[Transform] = []

    def text(self, call: int, transform: Transform | None = None) -> str:
        """The marker of the text that call number `call` will write, or of what a transform makes of that."""
        if transform is None:
            return f"{self._prefix}{call}\ue001"
        self._transforms.append(transform)
        return f"{self._prefix}{call}.{len(self._transforms) - 1}\ue001"

    def stand_in(self, text: str) -> bool:
        return self._prefix in text

    def are_whole(self, text: str) -> bool:
        """Nothing has cut or changed a marker in it."""
        rest = self._pattern.sub("", text)
        return "\ue000" not in rest and "\ue001" not in rest

    def split(self, text: str) -> list[str | Source]:
        """Text and what markers stand for, in order, without empty pieces."""
        pieces = self._pattern.split(text)
        mixed = [self._source(piece) if index % 2 else piece for index, piece in enumerate(pieces)]
        return [piece for piece in mixed if piece != ""]

    def call_of(self, text: str) -> int | None:
        """The number of the call, where this is all that it will write, and nothing else."""
        match self.split(text):
            case [Source(call, None)]:
                return call
        return None

    def referring(self, body: Mapping[str, Any], search: str) -> tuple[dict[str, Any], tuple[str, ...]] | None:
        """The body with references for markers, and the ids (`search` and a number) of the calls it reads; `None` if a
        marker is left in it."""
        reads: dict[str, None] = {}
        referring = {**body, "messages": [self._parted(message, search, reads) for message in body["messages"]]}
        is_left = json.dumps(self._prefix)[1:-1] in json.dumps(referring)
        return None if is_left else (referring, tuple(reads))

    def _parted(self, message: dict[str, Any], search: str, reads: dict[str, None]) -> dict[str, Any]:
        content = message.get("content")
        if not isinstance(content, str) or not self.stand_in(content):
            return message
        parts: list[dict[str, Any]] = []
        for piece in self.split(content):
            if isinstance(piece, Source):
                call = f"{search}-{piece.call}"
                reads[call] = None
                parts.append(reference(call, piece.transform))
            else:
                parts.append({"type": "text", "text": piece})
        return {**message, "content": parts}

    def _source(self, marked: str) -> Source:
        number, _, transform = marked.partition(".")
        return Source(int(number), self._transforms[int(transform)] if transform else None)
