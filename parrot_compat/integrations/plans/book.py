"""The plans of one run: what was found ahead, sent, and what became of it.

It knows drafts and plan clients, and no framework. It also keeps the counts, the latest records, and the
templates whose plans have not come true.

The invariant: a plan is closed exactly once, when the last run that uses it has ended.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from parrot_compat.integrations.process_lock import ProcessLock
from parrot_compat.integrations.remote import Endpoint
from parrot_compat.integrations.servers import plans_refused

from .client import Match, OpenPlan, PlanClient
from .ledger import CallAhead
from .sessions import RunSession

__all__ = ["CallRecord", "Draft", "PlanBook", "PlanRecord", "SentPlan", "Stats"]

log = logging.getLogger(__name__)

RECORDS_KEPT = 256
MISSES_REMEMBERED = 4096
MISSES_ALLOWED = 2


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the process began, or since they were last reset."""

    plans: int = 0
    planned: int = 0
    """Calls that were in a plan."""
    pushed: int = 0
    """Calls of the app that were answered by a push."""
    claimed: int = 0
    direct: int = 0
    """Calls of the app that were ordinary requests."""
    wasted: int = 0
    """Planned calls that the app did not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One planned call. Times are seconds since the plan was sent."""

    id: str
    function: str | None
    reads: tuple[str, ...]
    source: str | None
    """pushed, claimed or direct; `None`: the app did not take it."""
    taken_by: UUID | None
    """The run of the app's model that took it."""
    settled_s: float | None
    """When its answer was here."""
    taken_s: float | None
    """When the app came for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """One plan that is over."""

    run: str
    """Name of the run that it was made for."""
    calls: tuple[CallRecord, ...]
    accepted_s: float | None


@dataclass(frozen=True, slots=True)
class Draft:
    """One call that was found ahead of the app, and where it goes."""

    endpoint: Endpoint
    call: CallAhead


class SentPlan:
    """What was found for one run, and the plans that were sent for it: one for each server. Runs may share it."""

    def __init__(self, book: PlanBook, name: str, users: int) -> None:
        self.name = name
        self._book = book
        self._users = users
        self._open: dict[Endpoint, OpenPlan] = {}
        self._failed = False

    def send(
        self,
        found: Iterable[Draft],
        *,
        streamed: bool,
        width: int | None = None,
        session: RunSession | None = None,
    ) -> None:
        """`width`: so many of them run at once. `session`: what else belongs to it, where there is more."""
        for server, drafts in _by_server(found).items():
            calls = [draft.call for draft in drafts]
            read = {call for draft in drafts for call in draft.call.reads}
            if streamed:
                # A call that nothing reads and that reads nothing gains nothing, and its first words would wait
                # for the plan.
                calls = [call for call in calls if call.reads or call.id in read]
            if len(calls) < 2:
                continue
            awaited = [call.id for call in calls if call.id not in read]
            plan = PlanClient(drafts[0].endpoint).submit(calls, awaited, width, session)
            if plan is not None:
                self._open[server] = plan
                self._book.count(plans=1, planned=len(calls))

    def find(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Match | None:
        plan = self._open.get(endpoint.server)
        return plan.find(body) if plan is not None else None

    def is_for(self, endpoint: Endpoint) -> bool:
        return endpoint.server in self._open

    @property
    def is_answered(self) -> bool:
        """Every call in it has answered the app."""
        return all(len(plan.sources) == len(plan.calls) for plan in self._open.values())

    def run_ended(self, *, failed: bool) -> None:
        """One of the runs that use it is over. Never blocks."""
        with self._book.lock:
            self._users -= 1
            self._failed = self._failed or failed
            if self._users:
                return
        for plan in self._open.values():
            plan.close()
            self._book.keep(self.name, plan, failed=self._failed)


class PlanBook:
    """The planner's memory: counts, records, listeners, and templates that are not planned any more."""

    def __init__(self) -> None:
        self.lock = ProcessLock()
        self._stats = Stats()
        self._records: deque[PlanRecord] = deque(maxlen=RECORDS_KEPT)
        self._listeners: list[Callable[[PlanRecord], None]] = []
        self._misses: OrderedDict[str, int] = OrderedDict()

    def count(self, **more: int) -> None:
        with self.lock:
            self._stats = replace(self._stats, **{name: getattr(self._stats, name) + by for name, by in more.items()})

    def stats(self) -> Stats:
        return self._stats

    def records(self) -> tuple[PlanRecord, ...]:
        with self.lock:
            return tuple(self._records)

    def listen(self, listener: Callable[[PlanRecord], None]) -> Callable[[], None]:
        """Call `listener` with every plan that is over, in the thread in which it ended. Returns what undoes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def reset(self) -> None:
        """Forget the counts, the records and the misses."""
        with self.lock:
            self._stats = Stats()
            self._records.clear()
            self._misses.clear()

    def is_refused(self, identity: str) -> bool:
        """Calls of this template were planned in vain too often."""
        return self._misses.get(identity, 0) >= MISSES_ALLOWED

    def keep(self, name: str, plan: OpenPlan, *, failed: bool) -> None:
        record = _record(name, plan)
        sources = Counter(call.source for call in record.calls)
        wasted = sum(call.taken_s is None for call in record.calls)
        self.count(pushed=sources["pushed"], claimed=sources["claimed"], direct=sources["direct"], wasted=wasted)
        with self.lock:
            self._records.append(record)
            if plan.was_accepted and not failed:
                self._remember(record.calls)
        for listener in list(self._listeners):
            try:
                listener(record)
            except Exception:
                log.exception("a listener to plans failed")

    def _remember(self, calls: Iterable[CallRecord]) -> None:
        """A run that failed says nothing of its templates: it may have ended before it came to them."""
        taken = {call.function for call in calls if call.taken_s is not None}
        missed = {call.function for call in calls if call.taken_s is None}
        for function in taken - missed - {None}:
            self._misses.pop(str(function), None)
        for function in missed - {None}:
            self._misses[str(function)] = self._misses.pop(str(function), 0) + 1
        while len(self._misses) > MISSES_REMEMBERED:
            self._misses.popitem(last=False)


def _by_server(drafts: Iterable[Draft]) -> dict[Endpoint, list[Draft]]:
    grouped: dict[Endpoint, list[Draft]] = {}
    for draft in drafts:
        if not plans_refused(draft.endpoint):
            grouped.setdefault(draft.endpoint.server, []).append(draft)
    return grouped


def _record(name: str, plan: OpenPlan) -> PlanRecord:
    times = plan.times

    def since(moment: float | None) -> float | None:
        return None if moment is None else moment - times.opened

    calls = tuple(
        CallRecord(
            id=call.id,
            function=call.function,
            reads=call.reads,
            source=plan.sources.get(call.id),
            taken_by=plan.takers.get(call.id),
            settled_s=since(times.settled.get(call.id)),
            taken_s=since(times.taken.get(call.id)),
        )
        for call in plan.calls
    )
    return PlanRecord(run=name, calls=calls, accepted_s=since(times.accepted))
