"""Objectives: what each call of a session should be quick at (`GetPerfObj`), deduced backwards from what is awaited.

A deduction knows calls, edges, awaits and expected durations: no texts, no clock, no engines, no tasks. A call is here
from its acceptance until it is over. Rules:

1. A call is wanted as much as the app says (`Call.objective`), as its output is awaited, or as the most wanted call
   that reads it: latency before throughput before background. What nothing reads and nobody awaits is latency-bound
   where its answer is delivered on an open connection, or while it has not been passed over; else background. A call is
   passed over where an await is open when it comes, or begins later: the app waits for something else then. (One that
   asks for each answer right behind its call has none open between the two.) Of calls that the app has labelled as a
   stage none is passed over once one is awaited: it reads their answers one by one, and needs them all.
   An open connection or a claim counts for nothing where something that is wanted more than in the background reads
   the call.
2. Calls read by the same units are a stage: a call that is alone in its stage is a unit, a stage of several is one
   unit. Of a latency-bound stage of several only the last finish counts: it is a group, and run for throughput.
3. Slack is the time by which a call may finish later without anybody noticing (`slack_s`).

The invariant: what is deduced depends on the live calls, edges and awaits alone, on what of each label has been awaited
and, while no await is open, on which calls have been passed over; not on the order in which they came. A change costs
the calls whose deduction it changes and their edges. `check()` deduces everything anew and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .call import Call, CallId, ObjectiveKind
from .slack import slack_s
from .stages import Node, Stages

__all__ = ["BASE_SLACK_S", "Deduction", "Objective"]

KINDS: tuple[ObjectiveKind, ...] = ("latency", "throughput", "background")
"""By rank: 0 is wanted most."""

BASE_SLACK_S: dict[ObjectiveKind, float] = {"latency": 0.0, "throughput": 10.0, "background": 60.0}
"""Slack of what is wanted so: interactive work that comes within this time goes first."""

_LATENCY, _BACKGROUND = 0, 2
_UNSAID = 3  # an await that names no objective: the call's own, else latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a call should be quick at."""

    kind: ObjectiveKind = "latency"
    wanted: ObjectiveKind = "latency"
    """What all that reads it is wanted for: of a group of which only the last finish counts, not `kind`."""
    group: str | None = None
    """The calls whose last finish counts together with this one's."""
    slack_s: float = 0.0


@dataclass(slots=True)
class _Labelled:
    """Live calls of one label."""

    members: dict[Node, None] = field(default_factory=dict)
    rank: int = _BACKGROUND
    """The most that an output of them has been awaited as."""


class Deduction:
    """Every change returns the calls of which it has changed what they are wanted for, their kind or their group."""

    def __init__(self) -> None:
        self._nodes: dict[CallId, Node] = {}
        self._producers: dict[str, Node] = {}
        self._readers: dict[str, dict[Node, None]] = {}  # of variables, by live calls
        self._awaits: dict[str, list[int]] = {}  # variable: how many awaits of each rank, and unsaid
        self._stages = Stages()
        self._fresh: dict[Node, None] = {}  # not passed over yet
        self._labelled: dict[str, _Labelled] = {}

    # ---- questions -----------------------------------------------------------------------------------

    def kind(self, call: CallId) -> ObjectiveKind:
        return self._shown(self._nodes[call])[0]

    def group(self, call: CallId) -> str | None:
        return self._shown(self._nodes[call])[1]

    def wanted(self, call: CallId) -> ObjectiveKind:
        return KINDS[self._nodes[call].rank]

    def is_awaited(self, variable: str) -> bool:
        return variable in self._awaits

    def slack_s(self, call: CallId, spent_s: Callable[[CallId], float] = lambda _: 0.0) -> float:
        """See `slack`. `spent_s`: how long a call has been running. All that a call feeds is wanted no more than it is,
        so that it may be as late as that, however far `slack` looks."""
        node = self._nodes[call]
        least_s = BASE_SLACK_S[KINDS[node.rank]]
        return max(least_s, slack_s(node, self._base_s, lambda node: spent_s(node.call.id)))

    def check(self) -> None:
        fresh = Deduction()
        fresh._awaits = {variable: list(counts) for variable, counts in self._awaits.items()}
        fresh._labelled = {name: _Labelled(rank=labelled.rank) for name, labelled in self._labelled.items()}
        for node in reversed(self._nodes.values()):
            fresh.add([node.call], seconds=[node.seconds], is_delivered=node.is_delivered)
        fresh._pass_over(fresh._nodes[call] for call, node in self._nodes.items() if node not in self._fresh)
        assert not (self._fresh and self._awaits) and all(self._nodes[node.call.id] is node for node in self._fresh)
        groups: dict[str | None, str | None] = {None: None}
        for call, node in self._nodes.items():
            assert node.shown == self._shown(node), (call, node.shown)
            assert fresh.kind(call) == self.kind(call), (call, fresh.kind(call), self.kind(call))
            assert fresh.wanted(call) == self.wanted(call)
            assert groups.setdefault(self.group(call), fresh.group(call)) == fresh.group(call)
            assert node.readers == self._readers.get(node.call.output, {})
            assert node.units == Counter(reader.unit for reader in node.readers)
        assert len(set(groups.values())) == len(groups)
        self._stages.check()

    # ---- changes ---------------------------------------------------------------------------------------

    def add(self, calls: Iterable[Call], *, seconds: Iterable[float], is_delivered: bool = True) -> set[CallId]:
        """Calls that were accepted, each expected to take so many seconds."""
        for call, expected_s in zip(calls, seconds, strict=True):
            asked = None if call.objective is None else KINDS.index(call.objective)
            number = self._stages.draw_number()
            node = Node(
                call, number=number, rank=_BACKGROUND, asked=asked, seconds=expected_s, is_delivered=is_delivered
            )
            if not self._awaits:
                self._fresh[node] = None
            self._add(node)
        return self._changed()

    def remove(self, call: CallId) -> set[CallId]:
        """The call is over."""
        node = self._nodes.pop(call)
        del self._producers[node.call.output]
        for variable in node.call.prompt.inputs():
            readers = self._readers[variable]
            del readers[node]
            if not readers:
                del self._readers[variable]
        self._stages.leave(node)
        for reader in node.readers:
            del reader.sources[node]
        for source in node.sources:
            del source.readers[node]
            source.wanted[node.rank] -= 1
            self._stages.unlink(source, node)
            self._rank(source)
        self._fresh.pop(node, None)
        if node.call.stage is not None:
            labelled = self._labelled[node.call.stage.name]
            del labelled.members[node]
            if not labelled.members:
                del self._labelled[node.call.stage.name]
        self._stages.settle()
        self._stages.touched.pop(node, None)
        return self._changed()

    def deliver(self, call: CallId, is_delivered: bool) -> set[CallId]:
        """Somebody takes the call's answer on an open connection from now on, or nobody any more."""
        if (node := self._nodes.get(call)) is None:
            return set()
        node.is_delivered = is_delivered
        self._stages.touched[node] = None
        self._rank(node)
        return self._changed()

    def begin_await(self, variable: str, kind: ObjectiveKind | None = None) -> set[CallId]:
        """Somebody waits for the variable from now on, to `end_await`. `None`: as the call says, else latency."""
        counts = self._awaits.setdefault(variable, [0, 0, 0, 0])
        counts[_UNSAID if kind is None else KINDS.index(kind)] += 1
        if (node := self._producers.get(variable)) is not None:
            self._read(node)
        self._pass_over(tuple(self._fresh))
        return self._awaited(variable)

    def end_await(self, variable: str, kind: ObjectiveKind | None = None) -> set[CallId]:
        counts = self._awaits[variable]
        counts[_UNSAID if kind is None else KINDS.index(kind)] -= 1
        if not any(counts):
            del self._awaits[variable]
        return self._awaited(variable)

    # ---- inside: what is wanted ------------------------------------------------------------------------

    def _add(self, node: Node) -> None:
        self._nodes[node.call.id] = node
        self._producers[node.call.output] = node
        node.readers = self._readers.get(node.call.output, {}).copy()
        for reader in node.readers:
            reader.sources[node] = None
            node.wanted[reader.rank] += 1
        self._stages.enter(node)
        if node.call.stage is not None:
            self._labelled.setdefault(node.call.stage.name, _Labelled()).members[node] = None
            self._read(node)
        self._rank(node)
        for variable in node.call.prompt.inputs():
            self._readers.setdefault(variable, {})[node] = None
            if (source := self._producers.get(variable)) is not None:
                node.sources[source] = None
                source.readers[node] = None
                source.wanted[node.rank] += 1
                self._stages.link(source, node)
                self._rank(source)

    def _awaited(self, variable: str) -> set[CallId]:
        if (node := self._producers.get(variable)) is not None:
            self._stages.touched[node] = None
            self._rank(node)
        return self._changed()

    def _pass_over(self, nodes: Iterable[Node]) -> None:
        """Each call is passed over once."""
        for node in nodes:
            if node in self._fresh:
                del self._fresh[node]
                self._rank(node)

    def _read(self, node: Node) -> None:
        """Where its output is awaited, those of its label will be."""
        own = self._own(node) if node.call.output in self._awaits else None
        if own is None or node.call.stage is None:
            return
        labelled = self._labelled[node.call.stage.name]
        if own < labelled.rank:
            labelled.rank = own
            for member in labelled.members:
                self._rank(member)

    def _own(self, node: Node) -> int | None:
        """Its rank by what the app says of it, if it says anything."""
        ranks = [] if node.asked is None else [node.asked]
        for rank, count in enumerate(self._awaits.get(node.call.output, ())):
            if count:
                ranks.append(rank if rank != _UNSAID else node.asked or _LATENCY)
        return min(ranks, default=None)

    def _rank(self, node: Node) -> None:
        """Deduce a rank anew, and those of what feeds it as far as they change. No recursion: chains are long."""
        stale = [node]
        while stale:
            node = stale.pop()
            ranks = [rank for rank, readers in enumerate(node.wanted) if readers]
            own = self._own(node)
            if own is not None:
                ranks.append(own)
            is_passed_over = not node.readers and not node.is_delivered and node not in self._fresh
            rank = min(ranks, default=self._rank_passed_over(node) if is_passed_over else _LATENCY)
            if node.is_delivered:
                self._stages.touched[node] = None  # who reads it may change what is shown, and not the rank
                if own is None and self._is_only_delivered(node):
                    rank = _LATENCY
            if rank != node.rank:
                for source in node.sources:
                    source.wanted[node.rank] -= 1
                    source.wanted[rank] += 1
                node.rank = rank
                stale += node.sources
                self._stages.touched[node] = None

    def _rank_passed_over(self, node: Node) -> int:
        return _BACKGROUND if node.call.stage is None else self._labelled[node.call.stage.name].rank

    @staticmethod
    def _is_only_delivered(node: Node) -> bool:
        """Somebody takes its answer on an open connection, and all that reads it is background work."""
        return node.is_delivered and not any(node.wanted[:_BACKGROUND])

    # ---- inside: what has changed ----------------------------------------------------------------------

    def _base_s(self, node: Node) -> float | None:
        own = self._own(node)
        if own is None and node.readers and not self._is_only_delivered(node):
            return None
        return BASE_SLACK_S[KINDS[node.rank if own is None else own]]

    def _changed(self) -> set[CallId]:
        self._stages.settle()
        touched, self._stages.touched = self._stages.touched, {}
        changed = set()
        for node in touched:
            shown = self._shown(node)
            if shown != node.shown:
                node.shown = shown
                changed.add(node.call.id)
        return changed

    def _shown(self, node: Node) -> tuple[ObjectiveKind, str | None, ObjectiveKind]:
        stage, wanted = node.stage, KINDS[node.rank]
        if stage is None or not stage.is_group:
            return wanted, None, wanted
        if self._own(node) is None and self._is_only_delivered(node) and node.call.stage is None:
            return wanted, None, wanted  # each is awaited by itself: what reads them together is in the background
        only_last_counts = node.rank == _LATENCY and self._own(node) != _LATENCY
        return "throughput" if only_last_counts else wanted, f"stage-{stage.number}", wanted
