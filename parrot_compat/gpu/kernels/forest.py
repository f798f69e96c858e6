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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ForestRow", "SharedPrefix", "find_shared"]

Pages = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One row of a decode step, as far as sharing goes."""

    pages: Pages
    """Page ids in order."""
    shareable: int
    """Keys before its first query, which no step will write again. Its full pages may be shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """A run of pages that several rows read: the node of a forest."""

    rows: tuple[int, ...]
    """Two or more, ascending."""
    first_page: int
    """Place in the rows' page lists: 0 for a root, the end of the parent for every other node."""
    end_page: int

    @property
    def pages(self) -> int:
        return self.end_page - self.first_page


def find_shared(rows: Sequence[ForestRow], page_size: int) -> tuple[SharedPrefix, ...]:
    """Every maximal run of equal pages among rows, parents before their children."""
    trees: dict[int, list[int]] = defaultdict(list)  # rows that begin alike
    for number, row in enumerate(rows):
        if row.shareable >= page_size:
            trees[int(row.pages[0])].append(number)
    found: list[SharedPrefix] = []
    for members in trees.values():
        if len(members) > 1:
            lists = {number: rows[number].pages[: rows[number].shareable // page_size] for number in members}
            # In any lexicographic order of their pages, and that of their bytes is one, rows with a common front are
            # neighbours, and what the first and the last of a run have in common, all between them have.
            found += _nodes(sorted(members, key=lambda number: lists[number].tobytes()), lists, 0)
    return tuple(found)


def _nodes(ordered: Sequence[int], lists: dict[int, Pages], depth: int) -> Iterator[SharedPrefix]:
    """`ordered` are equal up to `depth`."""
    pending = [(list(ordered), depth)]
    while pending:
        members, reached = pending.pop()
        common = _common(lists[members[0]], lists[members[-1]])
        if common > reached:
            yield SharedPrefix(rows=tuple(sorted(members)), first_page=reached, end_page=common)
        branches: dict[int, list[int]] = defaultdict(list)
        for number in members:
            if len(lists[number]) > common:
                branches[int(lists[number][common])].append(number)
        pending += [(branch, common) for branch in branches.values() if len(branch) > 1]


def _common(left: Pages, right: Pages) -> int:
    """How many pages the two lists have in common from the front on."""
    both = min(len(left), len(right))
    differ = np.flatnonzero(left[:both] != right[:both])
    return int(differ[0]) if len(differ) else both
