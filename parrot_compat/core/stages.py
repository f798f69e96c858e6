"""Stages: live calls that are read by the same units, and so run in parallel for the same consumer.

A call that is alone in its stage is a unit; a stage of several calls is one unit. So the calls before it that feed it
together are a stage again, and what feeds the whole of it alone is a link of a chain. A stage of several is what
placement sees, by its number, as a *group*; what an app says of a stage is a *label*. Stages know nothing of
what is awaited, of time or of texts.

The invariant: stages depend on the live calls and their edges alone, not on the order in which they came; a change
costs the edges of the calls whose unit it changes. `Deduction.check()` builds them anew and compares.
"""

from __future__ import annotations

import itertools

from .call import Call, StageLabel

__all__ = ["Node", "Stage", "Stages"]


class Node:
    """A live call. Equal only to itself."""

    __slots__ = (
        *("asked", "call", "is_delivered", "key", "number", "rank", "readers", "seconds", "shown", "sources"),
        *("stage", "unit", "units", "wanted"),
    )

    def __init__(self, call: Call, *, number: int, rank: int, asked: int | None, seconds: float, is_delivered: bool):
        self.call = call
        self.number = number
        self.asked = asked
        """Rank of the call's own objective."""
        self.rank = rank
        self.seconds = seconds
        self.is_delivered = is_delivered
        self.sources: dict[Node, None] = {}
        self.readers: dict[Node, None] = {}
        self.wanted = [0, 0, 0]
        """Readers by rank."""
        self.units: dict[int, int] = {}
        """Numbers of the units that read it, and by how many calls."""
        self.key = 0
        """Names the set of these units."""
        self.unit = number
        self.stage: Stage | None = None
        self.shown: object = None
        """What was last told of it."""


class Stage:
    """Calls that run in parallel for the same consumer, or for one label of the app's."""

    __slots__ = ("announced", "key", "members", "number")

    def __init__(self, key: int | str, number: int) -> None:
        self.key = key
        self.number = number
        self.members: dict[Node, None] = {}
        self.announced = 0
        """Members of which the app has said that they are not alone."""

    @property
    def is_group(self) -> bool:
        return len(self.members) > 1 or self.announced > 0


_Change = tuple[Node, int | None, int | None]
"""One reader of the node belonged to the first unit and belongs to the second now; `None` where it is new, or gone."""


class Stages:
    """Calls enter and leave, links come and go; then `settle` deduces the stages that follow."""

    def __init__(self) -> None:
        self.touched: dict[Node, None] = {}
        """Calls whose group may have changed, for the owner to look at and clear."""
        self._stages: dict[int | str, Stage] = {}
        self._numbers = itertools.count(1)
        self._changes: list[_Change] = []
        self._entering: list[Node] = []
        self._changed: dict[Stage, bool] = {}  # stages that members have joined or left, and whether they were groups

    def draw_number(self) -> int:
        """For a call or a stage."""
        return next(self._numbers)

    def enter(self, node: Node) -> None:
        """A new call, with the readers that were here before it."""
        for reader in node.readers:
            _count(node, None, reader.unit)
        self._entering.append(node)

    def leave(self, node: Node) -> None:
        """A call that is over."""
        self._part(node)

    def link(self, source: Node, reader: Node) -> None:
        self._changes.append((source, None, reader.unit))

    def unlink(self, source: Node, reader: Node) -> None:
        self._changes.append((source, reader.unit, None))

    def settle(self) -> None:
        """Deduce the stages anew, upstream as far as they change. In rounds: in one, all readers of a call are counted
        before it moves, and calls that move together stay together, so that what feeds them sees no change."""
        while self._changes or self._entering or self._changed:
            movers, self._entering = self._entering, []
            movers += self._recount(set(movers))
            self._move(movers)
            self._renumber(movers)

    def check(self) -> None:
        assert not self._changes and not self._entering and not self._changed
        for key, stage in self._stages.items():
            assert stage.key == key and stage.members
            assert all(node.stage is stage for node in stage.members)
            assert stage.announced == sum(_announces(node.call.stage) for node in stage.members)
            unit = {stage.number} if stage.is_group else {node.number for node in stage.members}
            assert {node.unit for node in stage.members} == unit

    # ---- inside ----------------------------------------------------------------------------------------

    def _recount(self, entering: set[Node]) -> list[Node]:
        """Apply the changes so far. Returns the calls that are read by other units than before."""
        changes, self._changes = self._changes, []
        keys: dict[Node, int] = {}
        for node, before, after in changes:
            keys.setdefault(node, node.key)
            _count(node, before, after)
        # A call whose stage the app has named stays in it.
        return [n for n, key in keys.items() if n.key != key and n.call.stage is None and n not in entering]

    def _move(self, movers: list[Node]) -> None:
        leaving: dict[Stage, list[Node]] = {}
        for node in movers:
            if node.stage is not None:
                leaving.setdefault(node.stage, []).append(node)
        whole = [stage for stage, nodes in leaving.items() if _is_whole(stage, nodes)]
        for stage in whole:
            del self._stages[stage.key]
        staying: set[Node] = set()
        for stage in whole:
            key = next(iter(stage.members)).key
            if key not in self._stages:  # else there is one already, and the members join that
                stage.key = key
                self._stages[key] = stage
                staying |= stage.members.keys()
        for node in movers:
            if node not in staying:
                self._part(node)
        for node in movers:
            if node not in staying:
                self._join(node)

    def _part(self, node: Node) -> None:
        stage, node.stage = node.stage, None
        if stage is None:
            return
        self._changed.setdefault(stage, stage.is_group)
        del stage.members[node]
        stage.announced -= _announces(node.call.stage)
        if not stage.members and self._stages.get(stage.key) is stage:
            del self._stages[stage.key]

    def _join(self, node: Node) -> None:
        label = node.call.stage
        key = label.name if label is not None else node.key if node.units else None
        if key is None:
            return
        stage = self._stages.get(key)
        if stage is None:
            stage = self._stages[key] = Stage(key, self.draw_number())
        self._changed.setdefault(stage, stage.is_group)
        node.stage = stage
        stage.members[node] = None
        stage.announced += _announces(label)

    def _renumber(self, movers: list[Node]) -> None:
        changed, self._changed = self._changed, {}
        flipped = [
            node for stage, was_group in changed.items() if stage.is_group != was_group for node in stage.members
        ]
        for node in itertools.chain(movers, flipped):
            unit = node.number if node.stage is None or not node.stage.is_group else node.stage.number
            if unit != node.unit:
                self._changes += ((source, node.unit, unit) for source in node.sources)
                node.unit = unit
            self.touched[node] = None


def _count(node: Node, before: int | None, after: int | None) -> None:
    if after is not None:
        if after not in node.units:
            node.key ^= _scattered(after)
        node.units[after] = node.units.get(after, 0) + 1
    if before is not None:
        node.units[before] -= 1
        if not node.units[before]:
            del node.units[before]
            node.key ^= _scattered(before)


def _is_whole(stage: Stage, nodes: list[Node]) -> bool:
    """True where all members go, and to one place."""
    return len(nodes) == len(stage.members) and bool(nodes[0].units) and len({node.key for node in nodes}) == 1


def _announces(label: StageLabel | None) -> int:
    return int(label is not None and label.size is not None and label.size > 1)


_MASK = (1 << 64) - 1


def _scattered(number: int) -> int:
    """Numbers far apart, so that their exclusive or names a set of them. (The finaliser of splitmix64.)"""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
