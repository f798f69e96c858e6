"""The tokens of a sequence so far, as penalties count them.

It knows nothing of logits. It reads the sequence's own list of tokens, which only grows while the sequence draws:
preemption and recomputation leave it as it is.

The invariant: each token is absorbed once, so asking after every draw costs the same however long the text is,
but for copying the counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["History"]


class History:
    def __init__(self, tokens: Sequence[int], prompt_tokens: int) -> None:
        self._tokens = tokens
        self._prompt_tokens = prompt_tokens
        self._absorbed = 0
        self._places: dict[int, int] = {}
        self._ids = array("q")
        self._counts = array("q")

    def seen(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The different tokens of prompt and output, and how often each is in the output."""
        for position in range(self._absorbed, len(self._tokens)):
            token = self._tokens[position]
            place = self._places.setdefault(token, len(self._ids))
            if place == len(self._ids):
                self._ids.append(token)
                self._counts.append(0)
            self._counts[place] += position >= self._prompt_tokens
        self._absorbed = len(self._tokens)
        return np.array(self._ids, dtype=np.int64), np.array(self._counts, dtype=np.int64)

    def check(self) -> None:
        assert len(self._places) == len(self._ids) == len(self._counts)
        assert sum(self._counts) == max(0, self._absorbed - self._prompt_tokens)
