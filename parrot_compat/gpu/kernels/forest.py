"""Which rows of a step read the same pages: a forest of shared prefixes.

That rows read the same memory is decided by the equality of page ids alone, page by page: two stages of an app, or two
strangers with one system prompt, hold the same pages where the prefix cache gave them the same. It knows page ids and
lengths; nothing of kernels, devices or what sharing is worth.

The invariant: every row of a `SharedPrefix` has equal page ids at the places it names, all of whose slots hold keys
that every one of these rows sees. Two prefixes of one row never overlap, and the rows of a prefix have the same
prefixes before it: it is a forest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ForestRow", "SharedPrefix", "find_shared"]

Pages = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One row of a step, as far as sharing goes."""

    pages: Pages
    """Page ids in order."""
    shareable: int
    """Keys before its first query, which no step will write again. Its full pages may be shared."""
    queries: int = 1
    """In this step; `Sharing` leaves out rows of many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """A run of pages that several rows read: the node of a forest."""

    rows: tuple[int, ...]
    """Two or more, ascending."""
    first_page: int
    """Place in the rows' page lists: 0 for a root, the end of the prefix before it for every other node."""
    end_page: int

    @property
    def pages(self) -> int:
        return self.end_page - self.first_page


def find_shared(rows: Sequence[ForestRow], page_size: int, least_pages: int = 1) -> tuple[SharedPrefix, ...]:
    """Every maximal run of at least so many equal pages, parents before their children. A shorter run that more rows
    have in common makes no node: it is part of the longer runs that go on behind it."""
    full = {number: row.pages[: row.shareable // page_size] for number, row in enumerate(rows)}
    # In any lexicographic order of their pages, and that of their bytes is one, rows with a common front are
    # neighbours, and what the first and the last of a run have in common, all between them have.
    trees = _alike(full, full, 0, least_pages)
    pending = [(sorted(members, key=lambda number: full[number].tobytes()), 0) for members in trees]
    found: list[SharedPrefix] = []
    while pending:
        members, first = pending.pop()
        end = _common(full[members[0]], full[members[-1]])
        found.append(SharedPrefix(rows=tuple(sorted(members)), first_page=first, end_page=end))
        pending += [(branch, end) for branch in _alike(members, full, end, least_pages)]
    return tuple(found)


def _alike(members: Iterable[int], full: Mapping[int, Pages], first: int, count: int) -> list[list[int]]:
    """Those of `members` whose `count` pages from `first` on are equal, two or more together, in their order."""
    alike: dict[bytes, list[int]] = defaultdict(list)
    for number in members:
        if len(full[number]) >= first + count:
            alike[full[number][first : first + count].tobytes()].append(number)
    return [together for together in alike.values() if len(together) > 1]


def _common(left: Pages, right: Pages) -> int:
    """How many pages the two lists have in common from the front on."""
    both = min(len(left), len(right))
    differ = np.flatnonzero(left[:both] != right[:both])
    return int(differ[0]) if len(differ) else both
