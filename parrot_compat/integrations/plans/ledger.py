"""What a plan has promised: which request is which planned call, and how each call ended.

It knows JSON bodies and text, and nothing of networks or frameworks. Calls read one another by references
(`parrot:ref` parts); a call can be matched once the texts it reads are known.

The invariant: a planned call is given out at most once, and only to a request that equals it in canonical JSON.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from parrot_compat.core.errors import TransformFailed
from parrot_compat.core.transform import parse_transforms

__all__ = ["CallAhead", "Ending", "Entry", "Ledger", "Outcome", "canonical", "reference"]


def canonical(body: Mapping[str, Any]) -> str:
    """Equal requests have equal canonical forms, whatever the order of their fields."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def reference(call: str, transform: str | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The part of a message that stands for the text of another planned call, after a transform if one is given."""
    part: dict[str, Any] = {"type": "parrot:ref", "call": call}
    return part if transform is None else {**part, "transform": transform}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAhead:
    """A call of the app, before the app makes it. `request` is its body without what only streams have; the content of
    a message that reads other calls is a list of text and reference parts, which join into one string."""

    id: str
    request: Mapping[str, Any]
    reads: tuple[str, ...] = ()
    """Calls of the same plan whose text is in the request."""
    function: str | None = None
    """What the app calls again and again with other values: one name per prompt template."""
    stage: Mapping[str, Any] | None = None

    def filled(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The request with the references replaced by the texts they stand for. Errors: `TransformFailed`."""
        if not self.reads:
            return dict(self.request)
        messages = [_filled(message, texts) for message in self.request["messages"]]
        return {**self.request, "messages": messages}

    def wire(self) -> dict[str, Any]:
        call: dict[str, Any] = {"id": self.id, "request": self.request}
        if self.function is not None:
            call["function"] = self.function
        if self.stage is not None:
            call["stage"] = dict(self.stage)
        return call


def _filled(message: Mapping[str, Any], texts: Mapping[str, str]) -> Mapping[str, Any]:
    parts = message.get("content")
    if not isinstance(parts, list) or not any(part.get("type") == "parrot:ref" for part in parts):
        return message
    pieces = [_read(part, texts) if part["type"] == "parrot:ref" else part["text"] for part in parts]
    return {**message, "content": "".join(pieces)}


def _read(part: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    text = texts[part["call"]]
    for transform in parse_transforms(part.get("transform")):
        text = transform.apply(text)
    return text


class Ending(Enum):
    """How waiting for a planned call ended."""

    PUSHED = "pushed"
    """Its answer is here."""
    FAILED = "failed"
    """It will not come: the app makes the call itself."""
    LOST = "lost"
    """It may exist on the server, but the line it would have come by is broken: it can be claimed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    ending: Ending
    completion: Mapping[str, Any] | None = None


@dataclass(slots=True, eq=False)
class Entry:
    """One planned call and what became of it. `outcome` is set once, by whoever reads the pushes."""

    call: CallAhead
    key: str | None = None
    """Canonical form of the filled request; `None` while a text it reads is not known."""
    taken: bool = False
    outcome: Future[Outcome] = field(default_factory=Future)

    def __post_init__(self) -> None:
        # A running future cannot be cancelled: one waiter that gives up must not take the answer from the others.
        self.outcome.set_running_or_notify_cancel()


class Ledger:
    """The planned calls of one plan. Threads share it."""

    def __init__(self, calls: Sequence[CallAhead]) -> None:
        self._lock = threading.RLock()  # the garbage collector ends a stream anywhere, in here too
        self._entries = {call.id: Entry(call) for call in calls}
        self._texts: dict[str, str] = {}
        self._free: dict[str, deque[Entry]] = {}
        self._readers: dict[str, list[Entry]] = {}
        self._closed = False
        for entry in self._entries.values():
            for read in entry.call.reads:
                self._readers.setdefault(read, []).append(entry)
        for entry in self._entries.values():
            self._resolve(entry)

    @property
    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def is_read(self, call: str) -> bool:
        """Another planned call has its text in it."""
        return call in self._readers

    def take(self, key: str) -> Entry | None:
        """The first planned call, in plan order, that equals this request and has not been given out."""
        with self._lock:
            waiting = self._free.get(key)
            if self._closed or not waiting:
                return None
            entry = waiting.popleft()
            entry.taken = True
            return entry

    def push(self, call: str, request: Mapping[str, Any], completion: Mapping[str, Any]) -> None:
        """A finished call has arrived. It counts only if it ran with exactly the request that was planned, filled
        with the texts that this side knows."""
        entry = self._entries.get(call)
        if entry is None:
            return
        with self._lock:
            text = _text_of(completion)
            if entry.key is None or text is None or canonical(request) != entry.key:
                outcome = Outcome(Ending.FAILED)
            else:
                self._learn(call, text)
                outcome = Outcome(Ending.PUSHED, completion)
        _settle(entry, outcome)

    def fail(self, call: str) -> None:
        if (entry := self._entries.get(call)) is not None:
            _settle(entry, Outcome(Ending.FAILED))

    def settle_rest(self, ending: Ending) -> None:
        """Whatever has not arrived will not: no reader is left waiting."""
        for entry in self._entries.values():
            _settle(entry, Outcome(ending))

    def learn(self, call: str, text: str) -> None:
        """A claimed call brought its text by itself: calls that read it can be matched before the push."""
        with self._lock:
            self._learn(call, text)

    def close(self) -> None:
        """Nothing is given out any more."""
        with self._lock:
            self._closed = True

    def _learn(self, call: str, text: str) -> None:
        if call in self._texts:
            return
        self._texts[call] = text
        for reader in self._readers.get(call, ()):
            self._resolve(reader)

    def _resolve(self, entry: Entry) -> None:
        if entry.key is None and all(read in self._texts for read in entry.call.reads):
            try:
                entry.key = canonical(entry.call.filled(self._texts))
            except TransformFailed:  # there as well: no request of the app is this call
                return
            self._free.setdefault(entry.key, deque()).append(entry)

    def check(self) -> None:
        with self._lock:
            free = [entry for waiting in self._free.values() for entry in waiting]
            assert not any(entry.taken for entry in free), "a call that was given out is still on offer"
            assert all(entry.key is not None for entry in free), "a call is on offer before its texts are known"
            known = [entry for entry in self._entries.values() if entry.key is not None]
            assert len(known) == len(free) + sum(entry.taken for entry in known), "a call has been mislaid"


def _settle(entry: Entry, outcome: Outcome) -> None:
    with suppress(InvalidStateError):  # settled before: the first outcome stands
        entry.outcome.set_result(outcome)


def _text_of(completion: Mapping[str, Any]) -> str | None:
    """The value of a call: the content of its one answer, as a plain request would have brought it."""
    choices = completion.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    return choices[0]["message"].get("content") or ""
