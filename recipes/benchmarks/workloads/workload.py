"""What a workload is: a name, its variants, and how each makes the apps of one round.

It knows no lane. `Shape` says at which size a workload is run: 1.0 is the size of the paper's experiments.

The invariant: the apps of a round are decided by shape and text alone: arrivals, prompts and lengths are the same in
every lane.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..clients import Client
from ..text import FreshText

__all__ = ["App", "Build", "Round", "Shape", "Workload", "arrivals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes are given in the paper's numbers and asked for through this."""

    tokens: float = 1.0
    calls: float = 1.0
    rate: float = 1.0
    """Of arrivals, in the workload's own unit; open-loop workloads only."""
    tool_s: float = 0.1
    """Of the time that tools take. At 1.0 a tool takes 0.1 to 30 s."""

    def length(self, tokens: int) -> int:
        return max(1, round(self.tokens * tokens))

    def count(self, number: int, least: int = 1) -> int:
        return max(least, round(self.calls * number))


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One run of an app."""

    key: str
    run: Callable[[Client], Awaitable[str]]
    due_s: float = 0.0
    """When it arrives, counted from the start of the round."""
    says: Mapping[str, str] = field(default_factory=dict)
    """By name of the call, what it says where answers are recorded and the text of this app matters."""
    group: str = "app"
    """Apps of one kind, reported together. `background` ends with the rest, and is no app to be finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    apps: list[App]
    at_once: int | None = None
    """Most apps that run at a time; `None`: each begins when it is due."""


Build = Callable[[Shape, FreshText], Round]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    name: str
    title: str
    variants: Mapping[str, Build]
    """The first is the one that is run where none is named."""
    open_loop: frozenset[str] = frozenset()
    """Variants whose apps arrive at `Shape.rate`, whether the server keeps up or not."""
    llamaindex: frozenset[str] = frozenset()
    """Variants that are LlamaIndex apps; they are run where they are named."""
    notes: str = ""


def arrivals(rate_hz: float, seed: str) -> Iterator[float]:
    """Poisson arrivals, the same for the same seed."""
    drawn = random.Random(f"arrivals {seed}")
    now = 0.0
    while True:
        now += drawn.expovariate(rate_hz)
        yield now
