"""Slack: the time by which a call may finish later without anybody noticing.

    slack(call) = min over its readers of slack(reader) + longest(reader) - path(call), and the base of its own
    path(call)  = seconds(call) + longest(call);  longest(call) = max over its live sources of path(source)

All in seconds, of expected durations. The base is `BASE_SLACK_S` of what the call is wanted for by itself.

It is asked for when a call becomes ready, not kept: every answer that comes in changes it. It knows no clock.

The invariant: a question costs at most `SIGHT` calls, however large the graph; what lies beyond would be a guess on
guesses, and counts as due at once.
"""

from __future__ import annotations

from collections.abc import Callable

from .stages import Node

__all__ = ["slack_s"]

AHEAD = 8
"""Calls that slack looks ahead, and back from there."""
WIDE = 32
"""Where more calls than this feed one, rows decide which of them is last, not any one length."""
SIGHT = 128
"""Calls that one question looks at."""


def slack_s(node: Node, base_s: Callable[[Node], float | None]) -> float:
    """`base_s` is what a call may wait for its own sake; `None` where only its readers want it."""
    return _Look(base_s).slack_s(node, AHEAD)


class _Look:
    """One question, and how much of the graph it may still look at."""

    def __init__(self, base_s: Callable[[Node], float | None]) -> None:
        self._base_s = base_s
        self._left = SIGHT

    def slack_s(self, node: Node, ahead: int) -> float:
        self._left -= 1
        base_s = self._base_s(node)
        least_s = float("inf") if base_s is None else base_s
        for reader in node.readers:
            if least_s <= 0:
                break
            further_s = self.slack_s(reader, ahead - 1) if ahead and self._left > 0 else 0.0
            least_s = min(least_s, further_s + self._gap_s(node, reader))
        return least_s

    def _gap_s(self, node: Node, reader: Node) -> float:
        """How much longer the reader waits for its other sources than for `node`."""
        if not 1 < len(reader.sources) <= WIDE:
            return 0.0
        return max(self._path_s(source, AHEAD) for source in reader.sources) - self._path_s(node, AHEAD)

    def _path_s(self, node: Node, back: int) -> float:
        self._left -= 1
        if not back or self._left <= 0:
            return node.seconds
        return node.seconds + max((self._path_s(source, back - 1) for source in node.sources), default=0.0)
