"""Draws a graph of calls as text: every call stands to the right of all that it reads.

    map 1 ─┬─ reduce
    map 2 ─┤
    map 3 ─┘

It knows nothing of models or servers. An edge that others imply is left out: a call that reads a text and also its
summary is drawn behind the summary only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

WIDTH = 80
MANY = 8
"""More calls than these that are alike (one name, equal sources, equal readers) are not all drawn."""

_JOINTS = {  # by (up, down, left, right)
    (1, 1, 0, 0): "│",
    (0, 0, 1, 1): "─",
    (0, 1, 1, 0): "┐",
    (1, 0, 1, 0): "┘",
    (0, 1, 0, 1): "┌",
    (1, 0, 0, 1): "└",
    (0, 1, 1, 1): "┬",
    (1, 0, 1, 1): "┴",
    (1, 1, 1, 0): "┤",
    (1, 1, 0, 1): "├",
    (1, 1, 1, 1): "┼",
}

Rows = dict[str, int]
"""The calls of one layer, each with its row."""


def draw(names: Mapping[str, str], reads: Mapping[str, Collection[str]], width: int = WIDTH) -> str:
    """`names` of the calls by id, in the order in which they are to stand; `reads` are the ids that a call reads, those
    without a name are left out. Calls that share a name are numbered."""
    labels = numbered(names)
    sources = {call: frozenset(reads.get(call, ())).intersection(names) for call in names}
    sources = _few_alike(_without_implied(sources), names, labels)
    layers = _layers(sources)
    rows = _placed(layers, sources)
    columns: list[list[str]] = []
    height = 1 + max((row for layer in rows for row in layer.values()), default=0)
    for number, layer in enumerate(rows):
        after = rows[number + 1] if number + 1 < len(rows) else {}
        read = {source for call in after for source in sources[call]}
        sides = _labelled(layer, labels, read, height), _joined(layer, after, sources, height)
        columns.append([left + right for left, right in zip(*sides, strict=True)])
    return _banded(columns, width)


def numbered(names: Mapping[str, str]) -> dict[str, str]:
    """The names, with a number where several calls have one name."""
    count = Counter(names.values())
    seen: Counter[str] = Counter()
    labels: dict[str, str] = {}
    for call, name in names.items():
        seen[name] += 1
        labels[call] = f"{name} {seen[name]}" if count[name] > 1 else name
    return labels


# ---- which edges and calls are drawn -------------------------------------------------------------------


def _without_implied(sources: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Transitive reduction."""
    behind: dict[str, frozenset[str]] = {}
    for call in _in_order(sources):
        behind[call] = sources[call].union(*(behind[source] for source in sources[call]))
    return {call: read - frozenset().union(*(behind[source] for source in read)) for call, read in sources.items()}


def _few_alike(
    sources: Mapping[str, frozenset[str]], names: Mapping[str, str], labels: dict[str, str]
) -> dict[str, frozenset[str]]:
    """Of many calls alike: the first two, how many more there are, and the last."""
    readers: defaultdict[str, set[str]] = defaultdict(set)
    for call, read in sources.items():
        for source in read:
            readers[source].add(call)
    alike: defaultdict[tuple[str, frozenset[str], frozenset[str]], list[str]] = defaultdict(list)
    for call, read in sources.items():
        alike[names[call], read, frozenset(readers[call])].append(call)
    hidden: set[str] = set()
    for calls in alike.values():
        if len(calls) > MANY:
            labels[calls[2]] = f"\N{VERTICAL ELLIPSIS} {len(calls) - 3} more"
            hidden.update(calls[3:-1])
    return {call: read - hidden for call, read in sources.items() if call not in hidden}


# ---- where they stand ----------------------------------------------------------------------------------


def _layers(sources: dict[str, frozenset[str]]) -> list[list[str]]:
    """Calls by the longest way that leads to them. Where an edge passes a layer it is given a place there, a call
    without a label; `sources` then leads through it."""
    depth: dict[str, int] = {}
    for call in _in_order(sources):
        depth[call] = 1 + max((depth[source] for source in sources[call]), default=-1)
    layers: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for call in sources:
        layers[depth[call]].append(call)
    for call in list(sources):
        for source in sorted(sources[call]):
            nearest = source
            for passed in range(depth[source] + 1, depth[call]):
                place = f"{source}\0{passed}"
                if place not in sources:
                    sources[place] = frozenset({nearest})
                    layers[passed].append(place)
                nearest = place
            sources[call] = sources[call] - {source} | {nearest}
    return [wide for after in layers for wide in (_forks(after, sources), after) if wide]


def _forks(layer: Sequence[str], sources: dict[str, frozenset[str]]) -> list[str]:
    """A call that several bundles read together with others would join them all: in front of such bundles, every
    bundle gets a line of its own from every call that it reads. Returns the places where those lines are."""
    bundles = dict.fromkeys(sources[call] for call in layer if len(sources[call]) > 1)
    count = Counter(source for bundle in bundles for source in bundle)
    if max(count.values(), default=0) < 2:
        return []
    places: list[str] = []
    for number, bundle in enumerate(dict.fromkeys(sources[call] for call in layer)):
        own = {f"{source}\0{number}\0{layer[0]}": frozenset({source}) for source in bundle}
        for call in layer:
            if sources[call] == bundle:
                sources[call] = frozenset(own)
        sources.update(own)
        places += own
    return places


def _in_order(sources: Mapping[str, frozenset[str]]) -> list[str]:
    """Every call after all that it reads."""
    order: dict[str, None] = {}
    waiting = list(sources)
    while waiting:
        later = []
        for call in waiting:
            if sources[call] <= order.keys():
                order[call] = None
            else:
                later.append(call)
        if len(later) == len(waiting):
            raise ValueError(f"the calls {', '.join(sorted(later))} read one another in a circle")
        waiting = later
    return list(order)


def _placed(layers: Sequence[Sequence[str]], sources: Mapping[str, frozenset[str]]) -> list[Rows]:
    """Each call on a row, near the rows of what it reads."""
    placed: list[Rows] = []
    before: Rows = {}
    for layer in layers:

        def nearness(call: str, before: Rows = before) -> float:
            read = [before[source] for source in sources[call]]
            return sum(read) / len(read) if read else -1.0

        ordered = sorted(layer, key=nearness)
        rows = {call: row for row, call in enumerate(ordered)}
        if _channels(before, rows, sources) is None:  # lines would run over one another: below is room
            rows = {call: row + len(before) for call, row in rows.items()}
        placed.append(rows)
        before = rows
    return placed


# ---- the lines between two layers ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Calls of one layer that read the same calls of the layer before: one vertical line joins them all."""

    lefts: frozenset[int]
    rights: frozenset[int]

    @property
    def span(self) -> range:
        rows = self.lefts | self.rights
        return range(min(rows), max(rows) + 1)


def _bundles(before: Rows, after: Rows, sources: Mapping[str, frozenset[str]]) -> list[_Bundle]:
    rights: defaultdict[frozenset[int], set[int]] = defaultdict(set)
    for call, row in after.items():
        if sources[call]:
            rights[frozenset(before[source] for source in sources[call])].add(row)
    return [_Bundle(lefts, frozenset(rows)) for lefts, rows in rights.items()]


def _channels(before: Rows, after: Rows, sources: Mapping[str, frozenset[str]]) -> dict[_Bundle, int] | None:
    """Which vertical line of the gap is whose. `None` where two horizontal lines would share a row: a line from the
    left must have ended before one to the right begins, and is one call's alone until it meets those of others."""
    bundles = _bundles(before, after, sources)
    first = {
        bundle: {
            other
            for other in bundles
            if other != bundle and (other.lefts & bundle.rights or other.lefts < bundle.lefts)
        }
        for bundle in bundles
    }
    channels: dict[_Bundle, int] = {}
    while len(channels) < len(bundles):
        ready = [bundle for bundle in bundles if bundle not in channels and first[bundle] <= channels.keys()]
        if not ready:
            return None
        for bundle in ready:
            taken = {channel for other, channel in channels.items() if set(other.span) & set(bundle.span)}
            least = 1 + max((channels[other] for other in first[bundle]), default=-1)
            channels[bundle] = next(channel for channel in range(least, len(bundles)) if channel not in taken)
    return channels


def _joined(before: Rows, after: Rows, sources: Mapping[str, frozenset[str]], height: int) -> list[str]:
    """The gap between two layers, a line for each row."""
    channels = _channels(before, after, sources)
    assert channels is not None, "rows were chosen so that there are channels"
    if not channels:
        return [""] * height
    width = 2 * max(channels.values()) + 3
    return ["".join(_joint(row, place, channels) for place in range(width)) for row in range(height)]


def _joint(row: int, place: int, channels: Mapping[_Bundle, int]) -> str:
    ends = [2 * channel + 1 for bundle, channel in channels.items() if row in bundle.lefts]
    begins = [2 * channel + 1 for bundle, channel in channels.items() if row in bundle.rights]
    left = any(place <= end for end in ends) or any(begin < place for begin in begins)
    right = any(place < end for end in ends) or any(begin <= place for begin in begins)
    here = [bundle for bundle, channel in channels.items() if 2 * channel + 1 == place and row in bundle.span]
    if not here:
        return "─" if left or right else " "
    (bundle,) = here
    if row not in bundle.lefts | bundle.rights:
        return "│"  # also where another line passes under it
    return _JOINTS[row > bundle.span[0], row < bundle.span[-1], left, right]


def _labelled(layer: Rows, labels: Mapping[str, str], read: Collection[str], height: int) -> list[str]:
    """The names of a layer, a line for each row."""
    width = max(len(labels.get(call, "")) for call in layer)
    lines = [" " * (width + 2)] * height
    for call, row in layer.items():
        if call not in labels:
            lines[row] = "─" * (width + 2)
        else:
            lines[row] = f" {labels[call]} ".ljust(width + 2, "─" if call in read else " ")
    return lines


def _banded(columns: Sequence[Sequence[str]], width: int) -> str:
    """Columns side by side; what does not fit goes on below."""
    bands: list[list[str]] = []
    for column in columns:
        if bands and len(bands[-1][0]) + len(column[0]) <= width + 1:
            bands[-1] = [line + more for line, more in zip(bands[-1], column, strict=True)]
        else:
            bands.append(list(column))
    texts = []
    for band in bands:
        while band and not band[-1].strip():
            band.pop()
        texts.append("\n".join(line[1:].rstrip() for line in band))
    return "\n".join(texts)
