"""Which blocks of tokens a prefix cache has, of what was read last: an engine's own that computes nothing, or what is
believed of another's.

It knows hashes of prefixes (`core.prefix`), no tokens and no time.

The invariant: never more blocks than fit, the least recently used go first, and a prefix stays as long as what goes on
after it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence, Set

from .prefix import BLOCK_TOKENS

__all__ = ["BlockCache"]


class BlockCache:
    def __init__(self, capacity_tokens: int | None) -> None:
        """`None`: everything fits."""
        self._most = None if capacity_tokens is None else capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    @property
    def blocks(self) -> Set[int]:
        """Those it has now; it goes on changing."""
        return self._blocks.keys()

    def cached_tokens(self, blocks: Sequence[int], tokens: int) -> int:
        """Of a prompt's tokens; the last one is always computed, to draw from it."""
        known = sum(1 for _ in itertools.takewhile(self._blocks.__contains__, blocks))
        return min(known * BLOCK_TOKENS, tokens - 1) if known else 0

    def remember(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):  # a prefix is used no later than what goes on after it
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while self._most is not None and len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def check(self) -> None:
        assert self._most is None or len(self._blocks) <= self._most
