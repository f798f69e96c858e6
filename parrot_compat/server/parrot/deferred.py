"""Deferred requests: what was accepted to be done later, so that the same request sent again finds it.

SDKs send a POST again after a lost answer, a 409, a 429 or a 5xx. It knows nothing of what is accepted.

The invariant: within one scope a call id stands for one body, as long as what was accepted has not ended; what is kept
goes with that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from parrot_compat.server.errors import ApiError

__all__ = ["Deferred", "OnEnd", "Scope", "call_exists"]

T = TypeVar("T")
Scope = tuple[str, ...]
"""Where call ids are unique: a tenant and, under it, a session, a client's run or an idempotency key."""


@dataclass(eq=False, slots=True)
class _Entry(Generic[T]):
    body: bytes
    keys: list[tuple[Scope, str]]
    value: T | None = None
    is_settled: asyncio.Event = field(default_factory=asyncio.Event)


class Deferred(Generic[T]):
    def __init__(self) -> None:
        self._entries: dict[tuple[Scope, str], _Entry[T]] = {}

    async def once(
        self, scope: Scope, calls: Sequence[str], body: bytes, accept: Callable[[], Awaitable[tuple[T, OnEnd | None]]]
    ) -> tuple[T, bool]:
        """What `accept` gives, or gave when the same `body` (its digest) with these calls came before; and whether it
        did.

        `accept` also says how to be told of the end of what it gives; `None`: it is kept as long as this. Errors:
        `ApiError` 409, those of `accept`.
        """
        while (entry := self._earlier(scope, calls, body)) is not None:
            await entry.is_settled.wait()  # the first of two at the same time may still be refused
            if entry.value is not None:
                return entry.value, True
        entry = _Entry(body, [(scope, call) for call in calls])
        self._entries.update((key, entry) for key in entry.keys)
        try:
            entry.value, on_end = await accept()
        except BaseException:
            self._forget(entry)
            raise
        finally:
            entry.is_settled.set()
        if on_end is not None:
            on_end(lambda: self._forget(entry))
        return entry.value, False

    async def earlier(self, scope: Scope, call: str) -> T | None:
        """What was accepted with this call; waits where it is about to be. `None`: nothing."""
        entry = self._entries.get((scope, call))
        if entry is None:
            return None
        await entry.is_settled.wait()
        return entry.value

    def __len__(self) -> int:
        return len(self._entries)

    def _earlier(self, scope: Scope, calls: Sequence[str], body: bytes) -> _Entry[T] | None:
        for call in calls:
            entry = self._entries.get((scope, call))
            if entry is not None and entry.body != body:
                raise call_exists("id", call)
            if entry is not None:
                return entry
        return None

    def _forget(self, entry: _Entry[T]) -> None:
        for key in entry.keys:
            if self._entries.get(key) is entry:
                del self._entries[key]


def call_exists(param: str, call: str) -> ApiError:
    """A call of this id is there, and this is not the same request again."""
    return ApiError(
        f"{param}: call {call[:64]!r} was accepted before with another body; take another id for another call",
        status=409,
        code="call_exists",
        param=param,
        headers={"x-should-retry": "false"},
    )


OnEnd = Callable[[Callable[[], None]], object]
"""Takes a listener that is called when the thing has ended: `Session.at_close`, `Plan.when_over`."""
