"""How an output is drawn: sampling as an app asks for it.

It sends nothing. What is not given is the function's, then the server's.

The invariant: an `Output` that exists can be asked for; what contradicts itself is refused by name, here, before
anything was sent, and therefore the same wherever the app runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from parrot_compat.core.call import Sampling
from parrot_compat.core.errors import CallerError

__all__ = ["Output", "OutputFields"]


class OutputFields(TypedDict, total=False):
    """What an `Output` may be given."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    stop: str | tuple[str, ...] | list[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Sampling of one output: `Output(max_tokens=64, temperature=0)`."""

    max_tokens: int | None = None
    """Most tokens to draw; not given: the rest of the context."""
    temperature: float | None = None
    """0 is greedy."""
    top_p: float | None = None
    top_k: int | None = None
    """0 keeps all."""
    min_p: float | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] | list[str] | None = None
    """Strings that end the text; they are not part of it."""

    def __post_init__(self) -> None:
        self._whole("max_tokens", 1, 2**31 - 1)
        self._whole("top_k", 0, 2**31 - 1)
        self._whole("seed", -(2**63), 2**63 - 1)
        self._real("temperature", 0.0, 2.0)
        self._real("top_p", 0.0, 1.0)
        self._real("min_p", 0.0, 1.0)
        if self.stop is not None:
            stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
            if any(not isinstance(stop, str) or not stop for stop in stops):
                raise CallerError(f"stop is {self.stop!r}; each stop is a string that is not empty", "stop")
            object.__setattr__(self, "stop", stops)  # one form of it, so that equal outputs compare equal

    def over(self, other: Output) -> Output:
        """This one's values where they are given, the other's elsewhere."""
        return Output(**{**other.wire(), **self.wire()})

    def wire(self) -> dict[str, Any]:
        """What is given, by the names of the wire."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value is not None}

    def sampling(self) -> Sampling:
        """As core takes it, with the server's reading of the odd values."""
        wire = self.wire()
        if self.top_p is not None:
            wire["top_p"] = max(self.top_p, 1e-6)  # 0 keeps the likeliest token alone, and so does any share this small
        return Sampling(**wire)

    # ---- inside ----------------------------------------------------------------------------------------

    def _whole(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            raise CallerError(f"{name} is {value!r}; it must be a whole number", name)
        if not least <= value <= most:
            raise CallerError(f"{name} is {value}; it must be from {least} to {most}", name)

    def _real(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CallerError(f"{name} is {value!r}; it must be a finite number", name)
        if not least <= value <= most:
            raise CallerError(f"{name} is {value}; it must be from {least:g} to {most:g}", name)
