"""The pages of a context, in the order of its text: a list, and the same as an array.

A text gains a page in as many steps as a page has tokens, and every step of its row wants the whole list as numbers of
numpy: so each page is turned into one once, when the array is asked for after it has come. It knows page numbers;
nothing of pools, contexts or batches.

The invariant: `array` holds what the list holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PageList"]


class PageList(list[int]):
    """Grown by `+=`, `append` and `extend`, changed by item, slice and `del`. Nothing else changes it: whatever does
    must say from where on the array is not to be believed."""

    insert = pop = remove = clear = sort = reverse = __imul__ = None  # type: ignore[assignment]

    def __init__(self, pages: Iterable[int] = ()) -> None:
        super().__init__(pages)
        self._numbers: npt.NDArray[np.int64] = np.empty(len(self), dtype=np.int64)
        self._known = 0
        """So many of the first numbers are those of the list."""

    @property
    def array(self) -> npt.NDArray[np.int64]:
        """[pages], to be read before the list is changed again: it is written in place."""
        known, size = self._known, len(self)
        if known < size:
            if size > len(self._numbers):
                longer = np.empty(2 * size, dtype=np.int64)
                longer[:known] = self._numbers[:known]
                self._numbers = longer
            self._numbers[known:size] = self[known:]
            self._known = size
        return self._numbers[:size]

    def front(self, count: int) -> PageList:
        """The first `count` pages, as a list of its own."""
        front = PageList(self[:count])
        front._known = min(count, self._known)
        front._numbers[: front._known] = self._numbers[: front._known]
        return front

    def __setitem__(self, place: Any, pages: Any) -> None:
        self._forget(place)
        super().__setitem__(place, pages)

    def __delitem__(self, place: Any) -> None:
        self._forget(place)
        super().__delitem__(place)

    def _forget(self, place: Any) -> None:
        """All from `place` on may be others now, or stand elsewhere."""
        first, _, step = place.indices(len(self)) if isinstance(place, slice) else (range(len(self))[place], 0, 1)
        self._known = min(self._known, first if step > 0 else 0)

    def check(self) -> None:
        assert self.array.tolist() == self, "the array holds other pages than the list"
