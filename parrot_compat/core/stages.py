"""Stages: live calls that are read by the same units, and so run in parallel for the same consumer.

A call that is alone in its stage is a unit; a stage of several calls, a group, is one unit. So the calls before a group
that feed it together are a stage again, and what feeds the whole group alone is a link of a chain. Stages know
nothing of what is awaited, of time or of texts.

The invariant: stages depend on the live calls and their edges alone, not on the order in which they came; a change
costs the edges of the calls whose unit it changes. `Deduction.check()` builds them anew and compares.
"""

from __future__ import annotations

import itertools
from collections import deque

from .call import Call, Stage

__all__ = ["Node", "Stages", "Team"]


class Node:
    """A live call. Equal only to itself."""

    __slots__ = (
        *("asked", "call", "is_delivered", "key", "number", "rank", "readers", "seconds", "shown", "sources"),
        *("team", "unit", "units", "wanted"),
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
        self.team: Team | None = None
        self.shown: object = None
        """What was last told of it."""


class Team:
    """The members of a stage."""

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
"""One reader of the node belonged to the first unit and belongs to the second now; `None` where it is new, or gone.
(In one step: were it nowhere in between, a call could meet its own reader in a stage, and never leave it again.)"""


class Stages:
    def __init__(self) -> None:
        self.touched: dict[Node, None] = {}
        """Calls whose group may have changed, for the owner to look at and clear."""
        self._teams: dict[int | str, Team] = {}
        self._numbers = itertools.count(1)
        self._changes: deque[_Change] = deque()

    def draw_number(self) -> int:
        """For a call or a stage."""
        return next(self._numbers)

    def count_readers(self, node: Node) -> None:
        """A new call, with the readers that were here before it."""
        for reader in node.readers:
            if reader.unit not in node.units:
                node.key ^= _scattered(reader.unit)
            node.units[reader.unit] = node.units.get(reader.unit, 0) + 1

    def enter(self, node: Node) -> None:
        """The new call is linked to its sources too."""
        self._join(node)
        self._ripple()

    def leave(self, node: Node) -> None:
        """The call is over. Its sources are unlinked after this: before, one of them could meet it in its stage."""
        self._part(node)
        self._ripple()

    def link(self, source: Node, reader: Node) -> None:
        self._changes.append((source, None, reader.unit))
        self._ripple()

    def unlink(self, source: Node, reader: Node) -> None:
        self._changes.append((source, reader.unit, None))
        self._ripple()

    def check(self) -> None:
        assert not self._changes
        for key, team in self._teams.items():
            assert team.key == key and team.members
            assert all(node.team is team for node in team.members)
            assert team.announced == sum(_announces(node.call.stage) for node in team.members)
            unit = {team.number} if team.is_group else {node.number for node in team.members}
            assert {node.unit for node in team.members} == unit

    # ---- inside ----------------------------------------------------------------------------------------

    def _ripple(self) -> None:
        """Count the units that read a node anew, upstream as far as stages change."""
        while self._changes:  # first in, first out: a reader is somewhere before it is elsewhere
            node, before, after = self._changes.popleft()
            key = node.key
            if after is not None:
                if after not in node.units:
                    node.key ^= _scattered(after)
                node.units[after] = node.units.get(after, 0) + 1
            if before is not None:
                node.units[before] -= 1
                if not node.units[before]:
                    del node.units[before]
                    node.key ^= _scattered(before)
            if node.key != key and node.call.stage is None:  # else the app has said where it belongs
                self._part(node)
                self._join(node)

    def _join(self, node: Node) -> None:
        label = node.call.stage
        key = label.name if label is not None else node.key if node.units else None
        if key is None:
            self._set_unit(node, node.number)
            return
        team = self._teams.get(key)
        if team is None:
            team = self._teams[key] = Team(key, self.draw_number())
        node.team = team
        team.members[node] = None
        team.announced += _announces(label)
        self._set_units(team)

    def _part(self, node: Node) -> None:
        team, node.team = node.team, None
        if team is None:
            return
        del team.members[node]
        team.announced -= _announces(node.call.stage)
        if team.members:
            self._set_units(team)
        else:
            del self._teams[team.key]

    def _set_units(self, team: Team) -> None:
        """After a member came or went: how many there are matters only near two, to the newest of them."""
        for node in itertools.islice(reversed(team.members), 2):
            self._set_unit(node, team.number if team.is_group else node.number)

    def _set_unit(self, node: Node, unit: int) -> None:
        if unit != node.unit:
            for source in node.sources:
                self._changes.append((source, node.unit, unit))
            node.unit = unit
        self.touched[node] = None


def _announces(stage: Stage | None) -> int:
    return int(stage is not None and stage.size is not None and stage.size > 1)


_MASK = (1 << 64) - 1


def _scattered(number: int) -> int:
    """Numbers far apart, so that their exclusive or names a set of them. (The finaliser of splitmix64.)"""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
