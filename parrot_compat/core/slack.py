"""Slack: the time by which a call may finish later without anybody noticing.

    slack(call) = min over its readers of slack(reader) + longest(reader) - path(call), and the base of its own
    path(call)  = left(call) + longest(call);  longest(call) = max over its live sources of path(source)

All in seconds, of expected durations; `left` is what of it a call has not been running yet. The base is `BASE_SLACK_S`
of what the call is wanted for by itself.

It is asked for when a call becomes ready, not kept: every answer that comes in changes it. It is told what of a call is
over, and knows no clock.

The invariant: a question costs at most `SIGHT` looks, however large the graph, the nearest first; where that is not
enough there is no slack, so that what it gives is never more than these lengths say.
"""

from __future__ import annotations

from collections.abc import Callable

from .stages import Node

__all__ = ["slack_s"]

AHEAD = 8
"""Calls that slack looks ahead; what lies beyond would be a guess on guesses, and counts as due at once."""
BACK = 64
"""Calls that a path is followed back: what a longer chain feeds is out of sight."""
WIDE = 32
"""Where more calls than this feed one, rows decide which of them is last, not any one length."""
SIGHT = 256
"""Looks that one question takes: at calls, and at the edges back from them. So many have `WIDE` chains of `AHEAD`."""


def slack_s(node: Node, base_s: Callable[[Node], float | None], spent_s: Callable[[Node], float]) -> float:
    """`base_s` is what a call may wait for its own sake; `None` where only its readers want it. `spent_s`: how long it
    has been running."""
    return _Look(base_s, spent_s).slack_s(node, AHEAD)


class _Look:
    """One question, and how much of the graph it may still look at."""

    def __init__(self, base_s: Callable[[Node], float | None], spent_s: Callable[[Node], float]) -> None:
        self._base_s = base_s
        self._spent_s = spent_s
        self._left = SIGHT
        self._paths: dict[Node, float] = {}

    def slack_s(self, node: Node, ahead: int) -> float:
        self._left -= 1
        base_s = self._base_s(node)
        least_s = float("inf") if base_s is None else base_s
        for reader in node.readers:
            if least_s <= 0:
                break
            gap_s = self._gap_s(node, reader)
            further_s = self.slack_s(reader, ahead - 1) if ahead and self._left > 0 else 0.0
            least_s = min(least_s, gap_s + further_s)
        return least_s

    def _gap_s(self, node: Node, reader: Node) -> float:
        """How much longer the reader waits for its other sources than for `node`."""
        if not 1 < len(reader.sources) <= WIDE:
            return 0.0
        self._left -= len(reader.sources)
        paths = {source: self._path_s(source) for source in reader.sources}
        return max(paths.values()) - paths[node] if self._left >= 0 else 0.0

    def _path_s(self, node: Node, back: int = BACK) -> float:
        """Too short once nothing is left to look with."""
        if (known_s := self._paths.get(node)) is not None:
            return known_s
        self._left -= len(node.sources) if back else SIGHT * len(node.sources)
        longest_s = 0.0
        if self._left >= 0:
            for source in node.sources:
                longest_s = max(longest_s, self._path_s(source, back - 1))
        path_s = self._paths[node] = max(0.0, node.seconds - self._spent_s(node)) + longest_s
        return path_s
