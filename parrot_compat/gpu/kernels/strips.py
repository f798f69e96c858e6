"""How the attention of a step is cut into strips, the unit of work of the GPU kernel; host side, numpy only.

A strip is a run of keys in one page list and the queries (packed tokens) that attend to it together: it reads each key
once for all of them, and leaves for each a partial result. One reduce merges a query's partials by their log-sum-exp.
Three kinds differ only in shape:

  direct   a tile of neighbouring tokens of one row over all its keys: a prefill. The partial is the result.
  private  the few queries of one row over `split_keys` of its keys
  shared   the queries of many rows over keys of a `SharedPrefix`

It knows lengths and places, nothing of tensors, kernels or devices, and takes the prefixes it is given as true.

The invariant: every query meets every key that its row holds up to its own position in exactly one strip; and
without shared prefixes a row's strips follow from that row alone, so that its numbers do not hang on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.forest import SharedPrefix

__all__ = [
    "COLUMNS",
    "HeadShape",
    "RowShape",
    "Rows",
    "StripPlan",
    "Tiling",
    "padded",
    "plan_decode",
    "plan_strips",
    "row_shapes",
]

Table = np.ndarray[tuple[int, int], np.dtype[np.int32]]
Column = np.ndarray[tuple[int], np.dtype[np.int32]]
Rows = np.ndarray[tuple[int], np.dtype[np.int64]]

COLUMNS = ("first_member", "members", "first_page", "first_key", "keys", "ordinal")
"""Of a strip: its run in `StripPlan.members`; where its page list begins in the packed pages of the step; its keys, as
positions of that list; the place of its partial among those of each of its queries."""
KEYS = COLUMNS.index("keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShape:
    """What of a model and its dtype the work of attention depends on."""

    heads: int
    kv_heads: int
    dim: int
    element_bytes: int

    @property
    def group(self) -> int:
        """Heads to a kv head, padded: they are neighbouring rows of a product."""
        return padded(self.heads // self.kv_heads)

    @property
    def token_bytes(self) -> int:
        """Of a token's keys and values, in one layer."""
        return 2 * self.kv_heads * self.dim * self.element_bytes


def padded(count: int) -> int:
    """The next power of two: what a tile can have."""
    return 1 << (count - 1).bit_length()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How large strips are. Fixed for a model and a device, so that a row is always cut in the same way."""

    direct_queries: int
    private_queries: int
    """A row with at most this many queries is split over its keys, one with more is direct."""
    shared_queries: int
    split_keys: int
    """Private strips end at the multiples of this."""
    shared_strips: int
    """Shared strips of a step to aim at: enough to fill the device; more would only be more partials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowShape:
    """A row's part of the step. Its queries are at the last positions of its keys."""

    first_query: int
    queries: int
    keys: int
    first_page: int
    """Where its page list begins in the packed pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripPlan:
    """Tables of one step, all int32."""

    direct: Table
    """[strips, 6], see COLUMNS"""
    private: Table
    shared: Table
    members: Column
    """Packed tokens. It begins with all tokens of the step in order; the lists of shared strips follow."""
    lengths: Column
    """[tokens] keys that a token sees: its position + 1, before any window"""
    slot_starts: Column
    """[tokens + 1] the partials of token t are slot_starts[t] .. slot_starts[t + 1] - 1; a direct token has none"""
    split_tokens: Column
    """Tokens that have partials."""

    @property
    def slots(self) -> int:
        return int(self.slot_starts[-1])

    @property
    def loaded_keys(self) -> int:
        """Keys that programs load for one kv head, without a window: the sum of `keys` over all strips.

        A prefix of t keys that m queries share is loaded ceil(m / shared_queries) times, whether a load then comes from
        memory or from the device's cache: sum of t ceil(m / shared_queries) over prefixes, and each query's other keys.
        """
        return sum(int(table[:, KEYS].sum()) for table in (self.direct, self.private, self.shared))

    @property
    def unique_keys(self) -> int:
        """The same, each key of a row, or of a prefix that rows share, once: what `loaded_keys` can at best be."""
        runs: dict[tuple[int, int], int] = {}  # tiles over the same keys begin at the same; the longest has them all
        for _, _, first_page, first, count, _ in (*self.direct.tolist(), *self.shared.tolist()):
            runs[first_page, first] = max(count, runs.get((first_page, first), 0))
        return sum(runs.values()) + int(self.private[:, KEYS].sum())


def row_shapes(inputs: AttentionInputs) -> list[RowShape]:
    """The page lists of the rows are packed one after another."""
    first_page, rows = 0, []
    for number, keys in enumerate(inputs.kv_lengths):
        first, end = inputs.query_starts[number], inputs.query_starts[number + 1]
        rows.append(RowShape(first_query=first, queries=end - first, keys=keys, first_page=first_page))
        first_page += len(inputs.pages[number])
    return rows


def plan_strips(
    rows: Sequence[RowShape], page_size: int, tiling: Tiling, shared: Sequence[SharedPrefix] = ()
) -> StripPlan:
    """Rows that are direct keep out of the `shared` prefixes that name them; the others share on."""
    queries = np.array([row.queries for row in rows], dtype=np.int64)
    behind = np.array([row.keys - row.queries - row.first_query for row in rows], dtype=np.int64)
    tokens = np.arange(queries.sum())
    nodes = _among({number for number, row in enumerate(rows) if row.queries <= tiling.private_queries}, shared)
    gaps, shared_table, listed, partials = _cover(rows, nodes, page_size, tiling)
    starts = np.zeros(len(tokens) + 1, dtype=np.int32)
    np.cumsum(np.repeat(partials, queries), out=starts[1:])
    return StripPlan(
        direct=_direct([row for row in rows if row.queries > tiling.private_queries], tiling.direct_queries),
        private=_private(gaps, tiling.split_keys),
        shared=shared_table,
        members=np.concatenate([tokens, np.array(listed, dtype=np.int64)]).astype(np.int32),
        lengths=(tokens + 1 + np.repeat(behind, queries)).astype(np.int32),
        slot_starts=starts,
        split_tokens=np.flatnonzero(np.diff(starts)).astype(np.int32),
    )


def plan_decode(
    keys: Rows, first_pages: Rows, page_size: int, tiling: Tiling, shared: Sequence[SharedPrefix] = ()
) -> StripPlan:
    """`plan_strips` for rows of one query each: `keys` and the places of their page lists, [rows] int64."""
    if shared or not tiling.private_queries:
        shapes = zip(keys.tolist(), first_pages.tolist(), strict=True)
        rows = [
            RowShape(first_query=number, queries=1, keys=seen, first_page=first)
            for number, (seen, first) in enumerate(shapes)
        ]
        return plan_strips(rows, page_size, tiling, shared)
    # Many rows in every step: all of them at once, without an object for each.
    queries = np.arange(len(keys), dtype=np.int32)
    one, nothing = np.ones_like(queries), np.zeros_like(queries)
    gaps = np.stack([queries, one, first_pages.astype(np.int32), nothing, keys.astype(np.int32), nothing], axis=1)
    starts = np.zeros(len(keys) + 1, dtype=np.int32)
    np.cumsum(-(-keys // tiling.split_keys), out=starts[1:])
    return StripPlan(
        direct=_table([]), private=_private(gaps, tiling.split_keys), shared=_table([]), members=queries,
        lengths=keys.astype(np.int32), slot_starts=starts, split_tokens=queries,
    )  # fmt: skip


def _among(split: set[int], shared: Sequence[SharedPrefix]) -> list[SharedPrefix]:
    kept = [(node, tuple(row for row in node.rows if row in split)) for node in shared]
    return [replace(node, rows=rows) for node, rows in kept if len(rows) > 1]


def _direct(rows: Sequence[RowShape], queries: int) -> Table:
    lines = []
    # The tiles with most keys first: the device ends on short ones.
    for row in rows:
        for first in reversed(range(0, row.queries, queries)):
            count = min(queries, row.queries - first)
            seen = row.keys - row.queries + first + count
            lines.append((row.first_query + first, count, row.first_page, 0, seen, 0))
    return _table(lines)


def _cover(
    rows: Sequence[RowShape], nodes: Sequence[SharedPrefix], page_size: int, tiling: Tiling
) -> tuple[Table, Table, list[int], list[int]]:
    """Lay the nodes over the rows that are split: the gaps between them, as strips not yet cut; the shared strips; the
    lists of their members, one after another; and how many partials each token of a row has."""
    keys = _shared_keys(rows, nodes, page_size, tiling)
    partials = [-(-row.keys // tiling.split_keys) if row.queries <= tiling.private_queries else 0 for row in rows]
    of_row: dict[int, list[SharedPrefix]] = {number: [] for node in nodes for number in node.rows}
    for node in sorted(nodes, key=lambda node: node.first_page):
        for number in node.rows:
            of_row[number].append(node)
    gaps = [
        (row.first_query, row.queries, row.first_page, 0, row.keys, 0)
        for number, row in enumerate(rows)
        if partials[number] and number not in of_row
    ]
    ordinals: dict[int, int] = {}  # of a node's first partial, by its identity
    for number, its_nodes in of_row.items():
        row = rows[number]
        at = ordinal = 0
        for node in its_nodes:
            first, end = node.first_page * page_size, node.end_page * page_size
            if first > at:
                gaps.append((row.first_query, row.queries, row.first_page, at, first - at, ordinal))
                ordinal += _pieces(at, first, tiling.split_keys)
            # Rows of a node have the same nodes before it, so its partials have the same place in all of them.
            ordinals[id(node)] = ordinal
            ordinal += -(-(end - first) // keys)
            at = end
        gaps.append((row.first_query, row.queries, row.first_page, at, row.keys - at, ordinal))
        partials[number] = ordinal + _pieces(at, row.keys, tiling.split_keys)

    listed: list[int] = []
    lines = []
    tokens = sum(row.queries for row in rows)
    for node in nodes:
        of_node = (range(rows[r].first_query, rows[r].first_query + rows[r].queries) for r in node.rows)
        begin = len(listed)
        listed += chain.from_iterable(of_node)
        end, list_start = node.end_page * page_size, rows[node.rows[0]].first_page
        for piece, first in enumerate(range(node.first_page * page_size, end, keys)):
            count, ordinal = min(keys, end - first), ordinals[id(node)] + piece
            # Tiles of one run of keys are neighbours: the second finds it in the cache.
            for tile in range(begin, len(listed), tiling.shared_queries):
                width = min(tiling.shared_queries, len(listed) - tile)
                lines.append((tokens + tile, width, list_start, first, count, ordinal))
    return _table(gaps), _table(lines), listed, partials


def _shared_keys(rows: Sequence[RowShape], nodes: Sequence[SharedPrefix], page_size: int, tiling: Tiling) -> int:
    """Keys of a shared strip: as many as leave `shared_strips` strips in the step, at least `split_keys`."""
    work = 0
    for node in nodes:
        queries = sum(rows[number].queries for number in node.rows)
        work += -(-queries // tiling.shared_queries) * node.pages * page_size
    wanted = -(-work // tiling.shared_strips)
    return max(1, -(-wanted // tiling.split_keys)) * tiling.split_keys


def _pieces(first: int, end: int, size: int) -> int:
    """Into how many pieces the multiples of `size` cut first .. end - 1."""
    return -(-end // size) - first // size if end > first else 0


def _private(gaps: Table, size: int) -> Table:
    """Cut the gaps at the multiples of `size`."""
    gaps = gaps[gaps[:, 4] > 0]
    first, end = gaps[:, 3], gaps[:, 3] + gaps[:, 4]
    pieces = -(-end // size) - first // size
    cut = np.repeat(gaps, pieces, axis=0)
    number = np.arange(len(cut)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    grid = (np.repeat(first // size, pieces) + number) * size
    cut[:, 3] = np.maximum(grid, np.repeat(first, pieces))
    cut[:, 4] = np.minimum(grid + size, np.repeat(end, pieces)) - cut[:, 3]
    cut[:, 5] += number
    return cut


def _table(lines: Sequence[tuple[int, ...]]) -> Table:
    flat = np.fromiter(chain.from_iterable(lines), dtype=np.int32, count=len(lines) * len(COLUMNS))
    return flat.reshape(-1, len(COLUMNS))
