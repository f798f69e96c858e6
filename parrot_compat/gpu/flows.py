"""Flows: how many tokens each flow was served, so that equally urgent work of different flows takes turns.

It knows nothing of sequences or of what a flow is. A flow counts while it has work inside. A newcomer starts level with
the most served flow, and a flow that fell behind keeps a credit of at most `CREDIT_TOKENS`: nobody is owed the past.

The invariant: a flow that waits is overtaken by a bounded number of tokens, whatever else arrives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["Flows"]

CREDIT_TOKENS = 8192
"""Most tokens by which a flow may be behind and still catch up: about one long prompt."""


class Flows:
    """Tokens served per flow that has work inside."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._inside: Counter[str] = Counter()
        self._most = 0

    @property
    def served(self) -> Mapping[str, int]:
        """The lower, the sooner it is a flow's turn."""
        return MappingProxyType(self._served)

    def enter(self, flow: str) -> None:
        """One more sequence of this flow is inside."""
        self._inside[flow] += 1
        self._served.setdefault(flow, self._most)

    def leave(self, flow: str) -> None:
        self._inside[flow] -= 1
        if not self._inside[flow]:
            del self._inside[flow], self._served[flow]

    def serve(self, flow: str, tokens: int) -> None:
        """`tokens` of this flow were computed."""
        self._served[flow] = max(self._served[flow], self._most - CREDIT_TOKENS) + tokens
        self._most = max(self._most, self._served[flow])

    def check(self) -> None:
        assert set(self._served) == set(self._inside), "a flow is counted that has no work inside"
        assert all(count > 0 for count in self._inside.values())
        assert all(served <= self._most for served in self._served.values())
