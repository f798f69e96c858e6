"""The tokens of a sequence so far, as penalties count them.

It knows nothing of logits. It reads the sequence's own list of tokens, which only grows while the sequence draws:
preemption and recomputation leave it as it is.

The invariant: each token is absorbed once, and nothing is copied that was absorbed before, so asking after every draw
costs the same however long the text is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = ["History", "Seen"]

Seen = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Different tokens, in the order in which they came, and how often each is in the output: [tokens] both."""


class History:
    def __init__(self, tokens: Sequence[int], prompt_tokens: int) -> None:
        self._tokens = tokens
        self._prompt_tokens = prompt_tokens
        self._absorbed = 0
        self._places: dict[int, int] = {}
        self._ids = np.empty(0, dtype=np.int64)
        self._counts = np.empty(0, dtype=np.float32)
        self._changed = (0, 0)
        self.kept: Tensor | None = None
        """What was last given to `keep`."""

    def seen(self) -> Seen:
        """Of prompt and output. Both are views, to be read before the text grows: they are written in place."""
        places = self._places
        new: list[int] = []
        for token in self._tokens[self._absorbed :]:
            if token not in places:
                places[token] = len(places)
                new.append(token)
        self._append(new)
        for token in self._tokens[max(self._absorbed, self._prompt_tokens) :]:
            self._counts[places[token]] += 1
            self._has_changed(places[token], places[token] + 1)
        self._absorbed = len(self._tokens)
        return self._ids[: len(places)], self._counts[: len(places)]

    @property
    def changed(self) -> slice:
        """Where `seen` may say something else than when `keep` was called: the changes, and what lies between them."""
        return slice(*self._changed)

    def keep(self, kept: Tensor) -> None:
        """Remember a copy of all that was seen: from now on what changes is what it lacks."""
        self.kept, self._changed = kept, (0, 0)

    def _append(self, ids: list[int]) -> None:
        if not ids:
            return
        end = len(self._places)
        begin = end - len(ids)
        if end > len(self._ids):  # room for as many again as there were
            self._ids = np.concatenate((self._ids[:begin], np.empty(end, dtype=np.int64)))
            self._counts = np.concatenate((self._counts[:begin], np.empty(end, dtype=np.float32)))
        self._ids[begin:end] = ids
        self._counts[begin:end] = 0
        self._has_changed(begin, end)

    def _has_changed(self, begin: int, end: int) -> None:
        first, last = self._changed
        self._changed = (min(first, begin), max(last, end)) if first < last else (begin, end)

    def check(self) -> None:
        ids, counts = self._ids[: len(self._places)], self._counts[: len(self._places)]
        assert {token: place for place, token in enumerate(ids.tolist())} == self._places
        assert counts.sum() == max(0, self._absorbed - self._prompt_tokens)
