"""Sieving: of the rows that come in, those that the network has not learnt yet are gathered into segments to train on.

A network that does nine tasks of ten rightly learns from the tenth alone, and reading costs a third of learning. It
knows segments, and a function that says how each row's answers were foretold; nothing of networks or devices. The idea
is selective backpropagation's (Jiang et al. 2019, https://arxiv.org/abs/1910.00762).

The invariant: a row is in one segment at most; of the rows that nothing is learnt from, `KEPT` are in one all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recipes.train_builtin import packing
from recipes.train_builtin.packing import SEGMENT, Segment

KEPT = 0.06
"""Of the rows that are known, or hopeless: so that what is known is not forgotten."""
HOPELESS = 0.15
"""With more of its answer's tokens wrong a row has other right answers, or asks too much."""

Wrong = Callable[[Segment], npt.NDArray[np.bool_]]
"""Of each place of a segment: is its token foretold wrongly, or hardly rightly? [COUNTED]"""


class Sieve:
    def __init__(self, wrong: Wrong, seed: int) -> None:
        self._wrong = wrong
        self._generator = np.random.default_rng(seed)
        self._waiting: dict[int, list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]]] = defaultdict(list)
        self.seen = self.passed = 0
        """Rows."""

    def push(self, segment: Segment) -> Segment | None:
        """A segment to train on, when this one's rows make it full."""
        width = segment.width
        ids = segment.ids.reshape(-1, width)
        weights = np.zeros(SEGMENT, np.uint8)
        weights[segment.places] = segment.weights
        weights = weights.reshape(-1, width)
        chosen = self._chosen(segment, len(ids))
        self.seen, self.passed = self.seen + len(ids), self.passed + len(chosen)
        waiting = self._waiting[width]
        waiting += [(ids[row], weights[row]) for row in chosen]
        full = SEGMENT // width
        if len(waiting) < full:
            return None
        self._waiting[width] = waiting[full:]
        return packing.counted_most(
            np.stack([some for some, _ in waiting[:full]]),
            np.stack([counted for _, counted in waiting[:full]]),
            self._generator,
        )

    def _chosen(self, segment: Segment, rows: int) -> npt.NDArray[np.intp]:
        row_of, counts = segment.places // segment.width, segment.weights > 0
        asked = np.bincount(row_of[counts], minlength=rows)
        wrong = np.bincount(row_of[counts & self._wrong(segment)], minlength=rows)
        learns = (wrong > 0) & (wrong <= np.maximum(1, HOPELESS * asked))
        return np.flatnonzero(learns | (self._generator.random(rows) < KEPT))
