"""Interning: what the calls of a session have in common is there once.

An agent sends its whole history and all its tools with every request, and each request is read anew: a session that
keeps them as they come keeps the square of what was said. So texts, messages, tools and forms that were there before
are replaced by those.

It knows nothing of sizes or of how long anything is kept. The invariants: an interned call says exactly what the call
said that was given, and nothing is held of a call that was not accepted.
"""

from __future__ import annotations

import asyncio
import marshal
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

from .call import Call, Reading
from .prompt import ChatPrompt, Constant, Message, Prompt, Segment, TextPrompt

__all__ = ["LONG", "Held", "Interning"]

Some = TypeVar("Some")

Held = dict[Hashable, Any]
"""What was interned, by what it says. It holds nothing that the calls do not hold but the keys."""

LONG = 1_000
"""Characters of a text: that a shorter one is there once already is not worth remembering by itself."""
_AT_ONCE = 32
"""Calls that are interned without a look at what else is to be done."""
_DIGEST_BYTES = 32


class Interning:
    """Of the calls of one submit."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._new: Held = {}
        self._prompts: dict[int, tuple[Prompt, Prompt]] = {}  # by id: as it was given, which keeps the id, and interned

    async def calls(self, calls: Sequence[Call]) -> list[Call]:
        """As they are to be submitted."""
        interned: list[Call] = []
        for call in calls:
            interned.append(self.call(call))
            if len(interned) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return interned

    def call(self, call: Call) -> Call:
        format = call.sampling.format
        sampling = call.sampling if format is None else replace(call.sampling, format=self._once(format, format))
        return replace(call, prompt=self._prompt(call.prompt), sampling=sampling, reading=self._reading(call.reading))

    def hold(self) -> None:
        """The calls were accepted: what was new in them is there for those to come."""
        for key, new in self._new.items():
            self._held.setdefault(key, new)

    # ---- inside ----------------------------------------------------------------------------------------

    def _known(self, key: Hashable) -> Any:
        """What says the same, of an earlier call or of this submit; `None`: nothing does."""
        known = self._held.get(key)
        return self._new.get(key) if known is None else known

    def _once(self, key: Hashable, new: Some) -> Some:
        """What says the same as `new` and was there before, or `new`."""
        known: Some | None = self._known(key)
        return self._new.setdefault(key, new) if known is None else known

    def _prompt(self, prompt: Prompt) -> Prompt:
        """The choices of one request have one prompt."""
        given, interned = self._prompts.get(id(prompt), (None, prompt))
        if given is None:
            if isinstance(prompt, ChatPrompt):
                tools = tuple(map(self._value, prompt.tools))
                interned = ChatPrompt(tuple(map(self._message, prompt.messages)), tools, self._value(prompt.template))
            elif isinstance(prompt, TextPrompt):
                interned = TextPrompt(self._segments(prompt.segments))
            self._prompts[id(prompt)] = prompt, interned
        return interned

    def _message(self, message: Message) -> Message:
        content = None if message.content is None else self._segments(message.content)
        exact = _exact(message.fields)
        if exact is None:
            return Message(message.role, content, message.fields)
        key = message.role, content, exact
        known: Message | None = self._known(key)
        return known or self._once(key, Message(message.role, content, self._once(exact, message.fields)))

    def _segments(self, segments: Iterable[Segment]) -> tuple[Segment, ...]:
        return tuple(
            self._once(one.text, one) if isinstance(one, Constant) and len(one.text) >= LONG else one
            for one in segments
        )

    def _value(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        exact = _exact(value)
        return value if exact is None else self._once(exact, value)

    def _reading(self, reading: Reading) -> Reading:
        if not reading.schemas:
            return reading
        return replace(reading, schemas=self._value(reading.schemas))


def _exact(value: Any) -> bytes | None:
    """Equal for values that look the same to whatever reads them, and for no others: 1, 1.0 and true are different
    things to a chat template, and so are members in another order. `None`: it holds what JSON cannot."""
    try:
        written = marshal.dumps(value, 2)  # the last version that writes equal values equally, however they are shared
    except ValueError:
        return None
    return written if len(written) < _DIGEST_BYTES else sha256(written).digest()
